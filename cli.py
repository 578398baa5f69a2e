"""``fedpress``: the command line, thin. Every verb reads its words, calls one function and shows what came of it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpress import __version__
from fedpress import plan as plans
from fedpress.compression import registry
from fedpress.errors import FedpressError, MissingExtra, PlanError, closest
from fedpress.plan import Plan

app = typer.Typer(
    name="fedpress",
    help="Federated learning with compressed communication.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plan_app = typer.Typer(help="Check a plan, explain its keys, print all of it.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
console: Final = Console()
complaints: Final = Console(stderr=True)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PLAN|TASK] [KEY=VALUE]...",
        help="A plan (.toml), your own task (.py) or a built-in task's name; then any key of the plan, as in "
        "train.lr=0.05. None: the default plan.",
        show_default=False,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Remove what is in the run's directory first.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, such as runs/demo.")]


@app.command()
def simulate(
    words: Words = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the plan's directory.")] = False,
    fresh: Fresh = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the closing table.")] = False,
) -> None:
    """Run a whole federation on this machine, with real processes over gRPC, or inline in one.

    Examples: [bold]fedpress simulate digits run.rounds=10[/bold] ·
    [bold]fedpress simulate my_task.py engine.name=inline upload.codec=int8[/bold]
    """
    from fedpress.simulations.engines import simulate as run
    from fedpress.simulations.progress import watching

    plan = read_plan(words)
    try:
        with watching(plan, quiet) as watch:
            result = run(plan, watch.run, resume=resume, fresh=fresh, listen_baseline=watch.baseline)
    except KeyboardInterrupt:
        again = " ".join(["fedpress simulate", *(words or ()), "--resume"])
        complaints.print(f"Stopped; every finished round is kept in {plan.directory}. Go on with:\n  {escape(again)}")
        raise typer.Exit(130) from None
    _show(result.run_dir)


@app.command()
def server(
    words: Words = None,
    fresh: Fresh = False,
    linger: Annotated[
        float, typer.Option(help="Seconds to stay after the last round, so that devices hear that it is over.")
    ] = 10.0,
) -> None:
    """Serve a run to real devices. Continues the run in the plan's directory, if there is one.

    Example: [bold]fedpress server digits server.host=0.0.0.0 server.port=8440 server.cert=cert.pem server.key=key.pem
    clients.count=4[/bold]
    """
    from fedpress.simulations.engines.serving import serve
    from fedpress.simulations.progress import watching

    plan = read_plan(words)
    if fresh:
        shutil.rmtree(plan.directory, ignore_errors=True)
    with watching(plan, quiet=False) as watch:
        result = serve(plan, watch.run, lambda text: watch.say(text), linger)
    if result is None:
        complaints.print(f"Stopped; the run in {plan.directory} goes on when the server is started again.")
        raise typer.Exit(130)
    _show(result.run_dir)


@app.command()
def client(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLAN|TASK] [KEY=VALUE]...", help="The task, as for simulate.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call this device; unique in a run.")] = socket.gethostname(),
    vault: Annotated[Path, typer.Option(help="Where the device keeps what is its own; survives restarts.")] = Path(
        "vault"
    ),
    shard: Annotated[
        int | None,
        typer.Option(
            help="Hold this part (from 0) of the plan's simulated split; else all that the task's data gives."
        ),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear, on a network you trust.")] = False,
    device_class: Annotated[str, typer.Option(help="phone, pi, laptop, gpu ...")] = "any",
) -> None:
    """Take part in a run as one device, until it is over. Waits for a server that is not there yet.

    Example: [bold]fedpress client 192.0.2.7:8440 my_task.py --ca cert.pem --vault ~/.fedpress[/bold]
    """
    from fedpress.simulations.join import join
    from fedpress.simulations.problem import Problem

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        reason = join(
            Problem(read_plan(words)),
            address,
            vault,
            name=name,
            shard=shard,
            ca=ca,
            insecure=insecure,
            device_class=device_class,
        )
    except KeyboardInterrupt:
        reason = "stopped"
    console.print(f"Done: {escape(reason)}.")


@app.command()
def ship(
    run: RunDir,
    device_class: Annotated[str, typer.Option(help="Which devices it is for.")] = "",
) -> None:
    """Distil a run's model into a smaller one, quantise it to int8, export it to ONNX and check it on real data.

    Devices fetch it from the run's server with [bold]fedpress fetch[/bold].
    """
    from rich.progress import Progress

    from fedpress.simulations.shipping import ship_run
    from fedpress.simulations.units import ratio, share, size

    with Progress(console=console, transient=True) as bar:
        epochs = bar.add_task("distilling", total=plans.load(run / "plan.toml").ship.epochs)
        place, shipped, _ = ship_run(run, device_class, lambda *_: bar.advance(epochs))
    m = shipped.metrics
    table = Table("", "size", "accuracy", title=f"shipped: {place}")
    table.add_row("the run's model, fp32", size(m["teacher_bytes"]), share(m["teacher_accuracy"]))
    table.add_row("student, fp32", size(4 * m["student_parameters"]), share(m["student_accuracy"]))
    against = ratio(m["teacher_bytes"], m["bytes"])
    table.add_row(f"student, int8 ONNX ({against} smaller)", size(m["bytes"]), share(m["int8_accuracy"]))
    console.print(table)
    console.print(f"Measured on {m['measured_examples']:.0f} examples that neither distilling nor calibrating saw.")


@app.command()
def fetch(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server of a run that was shipped.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write the model.")] = Path("model.onnx"),
    vault: Annotated[Path, typer.Option(help="The device's vault.")] = Path("vault"),
    device_class: Annotated[str, typer.Option(help="Which kind of device asks.")] = "any",
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear.")] = False,
) -> None:
    """Fetch the shipped model as a device that took part in the run."""
    from fedpress.client.grpc_link import GrpcLink
    from fedpress.client.release import fetch_release
    from fedpress.client.vault import Vault

    link = GrpcLink(address, ca, insecure)
    with Vault(vault) as kept:
        release = fetch_release(link, kept, device_class, to)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(release.metrics.items()))
    console.print(f"{to}: {release.bytes} bytes of {release.format} for '{release.device_class}' ({metrics}).")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set to get; none: list them all.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="Default: $FEDPRESS_DATA, or ~/.cache/fedpress.")] = None,
) -> None:
    """List the data sets, or download one and verify its checksum."""
    from fedpress.simulations import data as sets
    from fedpress.simulations.units import size

    if name:
        console.print(f"{name}: complete in {sets.ensure(name, data_dir)}")
        return
    table = Table("data set", "here", "size", "natural clients", "licence", title=f"in {sets.located(data_dir)}")
    for row in sets.status(data_dir):
        table.add_row(row.name, row.state, size(row.nbytes), row.clients, row.licence)
    console.print(table)


@app.command()
def report(run: RunDir) -> None:
    """Write a run's report.html anew and print its closing table."""
    _show(run)


@app.command()
def codecs() -> None:
    """List the codecs that update and download chains are made of, with their laws."""
    table = Table("codec", "what it does", "options", "unbiased", "summable", "has memory")
    for row in registry.describe():
        options = "\n".join(f"{o.name}={o.default} ({o.expected})" for o in row.options)
        table.add_row(row.id, row.about, options, row.unbiased, row.summable, row.stateful)
    console.print(table)
    console.print("Chains are joined by +, as in [bold]ef+topk:0.01+int8[/bold]; ef wraps all to its right.")


@plan_app.command()
def check(words: Words = None) -> None:
    """Refuse a plan that cannot run, naming the key; load its task and model too, where torch is there."""
    from fedpress.simulations.problem import Problem

    plan = read_plan(words)
    problem = Problem(plan)
    problem.check()
    parameters = sum(array.size for array in problem.initial.values())
    console.print(f"Fine: task '{problem.task.name}', {parameters} parameters, {len(problem.names)} clients.")


@plan_app.command()
def show(words: Words = None) -> None:
    """Print a whole plan with all its defaults, as TOML."""
    console.print(plans.to_toml(read_plan(words)), markup=False, highlight=False)


@plan_app.command()
def explain(section: Annotated[str, typer.Argument(help="A section; none: all.")] = "") -> None:
    """Say what every key of a plan means, and its default."""
    known = plans.sections()
    if section and section not in known:
        raise PlanError(f"Unknown section '{section}'. {closest(section, known)}")
    for name, model in known.items():
        if section in ("", name):
            table = Table("key", "default", "meaning", title=f"\\[{name}] {(model.__doc__ or '').strip()}")
            for key, field in model.model_fields.items():
                table.add_row(f"{name}.{key}", str(field.default), field.description)
            console.print(table)


def read_plan(words: list[str] | None) -> Plan:
    """The plan that words on the command line describe: a file, or a task by name or path, then overrides."""
    words = list(words or ())
    target = words.pop(0) if words and "=" not in words[0] else None
    if target is None or target.endswith(".toml"):
        return plans.load(Path(target) if target else None, words)
    named = [] if any(w.startswith("run.name=") for w in words) else [f'run.name="{Path(target).stem}"']
    return plans.load(None, [f'task.name="{target}"', *named, *words])


def _show(run: Path) -> None:
    """The closing table, and the report where its libraries are installed."""
    from fedpress.simulations.report import write_report
    from fedpress.simulations.results import Result, table

    try:
        write_report(run, run / "baseline" if (run / "baseline").is_dir() else None)
    except MissingExtra as missing:
        complaints.print(f"No report.html: {escape(str(missing))}")
    console.print(table(Result.read(run)))


def _version(asked: bool) -> None:
    if asked:
        console.print(f"fedpress {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning with compressed communication."""


def main() -> None:
    """Entry point: errors that fedpress raises on purpose are a line on stderr, not a traceback."""
    try:
        app()
    except FedpressError as error:
        complaints.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, PlanError) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


if __name__ == "__main__":
    main()
