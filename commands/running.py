"""The verbs that run a federation: all of it on this machine, or the server for real devices."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from fedpress.commands.finished import examine, report
from fedpress.commands.screen import complaints
from fedpress.commands.words import Epsilon, Fresh, Guard, Words, guarded, read_plan
from fedpress.errors import PlanError, RunFailed

if TYPE_CHECKING:
    from fedpress.simulations.results import Result


def simulate(
    words: Words = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the plan's directory.")] = False,
    fresh: Fresh = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the closing table.")] = False,
    privacy: Guard = None,
    epsilon: Epsilon = None,
) -> None:
    """Run a whole federation on this machine, with real processes over gRPC, or inline in one.

    Examples: [bold]fedpress simulate digits run.rounds=10[/bold] ·
    [bold]fedpress simulate my_task.py engine.name=inline upload.codec=int8[/bold] ·
    [bold]fedpress simulate digits --privacy local --epsilon 8[/bold]
    """
    from fedpress.simulations.engines import simulate as run
    from fedpress.simulations.progress import watching

    words = [*(words or ()), *guarded(words, privacy, epsilon)]
    plan = read_plan(words)
    try:
        with watching(plan, quiet) as watch:
            result = run(plan, watch.run, resume=resume, fresh=fresh, listen_baseline=watch.baseline)
    except KeyboardInterrupt:
        again = " ".join(["fedpress simulate", *words, "--resume"])
        complaints.print(f"Stopped; every finished round is kept in {plan.directory}. Go on with:\n  {escape(again)}")
        raise typer.Exit(130) from None
    _close(result)
    if plan.audit.gate:
        examine(result.run_dir, (), plan.audit, plan.run.seed, gate=True)


def server(
    words: Words = None,
    fresh: Fresh = False,
    linger: Annotated[
        float, typer.Option(help="Seconds to stay after the last round, so that devices hear that it is over.")
    ] = 10.0,
    privacy: Guard = None,
    epsilon: Epsilon = None,
) -> None:
    """Serve a run to real devices. Continues the run in the plan's directory, if there is one.

    Example: [bold]fedpress server digits server.host=0.0.0.0 server.port=8440 server.cert=cert.pem server.key=key.pem
    clients.count=4[/bold]
    """
    from fedpress.simulations.engines.serving import serve
    from fedpress.simulations.progress import watching

    plan = read_plan([*(words or ()), *guarded(words, privacy, epsilon)])
    if plan.audit.gate:
        raise PlanError("Expected audit.gate = false: the data that an audit needs are on devices, not on this server.")
    if fresh:
        shutil.rmtree(plan.directory, ignore_errors=True)
    with watching(plan, quiet=False) as watch:
        result = serve(plan, watch.run, lambda text: watch.say(text), linger)
    if result is None:
        complaints.print(f"Stopped; the run in {plan.directory} goes on when the server is started again.")
        raise typer.Exit(130)
    _close(result)


def _close(result: Result) -> None:
    """Report on a run that is over. Raises RunFailed for one that did not do its job."""
    report(result.run_dir)
    if result.summary.failed:
        raise RunFailed(result.summary.failed)
