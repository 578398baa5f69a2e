"""The verbs for a run that is over: its report, what it spent, what attacks find, and the model it ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fedpress import plan as plans
from fedpress.commands.screen import complaints, console, wide
from fedpress.commands.words import RunDir
from fedpress.errors import MissingExtra, PrivacyError
from fedpress.sections import Audit


def report(run: RunDir) -> None:
    """Write a run's report.html anew and print its closing table."""
    from fedpress.simulations.results import Result, table

    try:
        _write_report(run)
    except MissingExtra as missing:
        complaints.print(f"No report.html: {escape(str(missing))}")
    console.print(table(Result.read(run)))


def privacy(
    run: RunDir,
    rounds: Annotated[int, typer.Option(min=0, help="What would so many more rounds like the last cost?")] = 0,
    every: Annotated[bool, typer.Option("--all", help="All of the ledger, not its last ten releases.")] = False,
    head: Annotated[str, typer.Option(help="A hash kept from before: is all that led to it still there?")] = "",
) -> None:
    """What a run has spent of its privacy budget, on whom, and what is left; checks that the ledger is as written.

    Example: [bold]fedpress privacy runs/demo --rounds 20[/bold]
    """
    from fedpress.simulations import spending

    found = spending.read(run, head)
    wide.print(spending.entries_table(found, None if every else 10))
    wide.print(spending.spent_table(found, rounds))
    for remark in spending.remarks(found, rounds):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)


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


def audit(
    run: RunDir,
    attack: Annotated[
        list[str] | None, typer.Option(help="loss, lira, inversion or mechanism; repeat for more. Default: all.")
    ] = None,
    shadows: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Shadow models for lira, each a run like this one; an even number. Default: audit.shadows.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that the audit draws.")] = 0,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 where more is found than is allowed.")] = False,
    max_auc: Annotated[
        float | None, typer.Option(min=0, max=1, help="For --gate. Default: audit.max_auc.", show_default=False)
    ] = None,
    max_epsilon: Annotated[
        float | None, typer.Option(min=0, help="For --gate. Default: audit.max_epsilon.", show_default=False)
    ] = None,
) -> None:
    """Attack a finished simulation: who was in its training data, what its uploads show, whether its noise holds.

    [bold]loss[/bold] and [bold]lira[/bold] guess who was a member, and prove an epsilon from below, to be held against
    the one that the run claims. [bold]inversion[/bold] rebuilds examples from uploads at the run's compression.
    [bold]mechanism[/bold] sends canaries through the run's noise. Writes audit.json and audit.png into the run's
    directory, and a picture into its report. What they say is about real members: it is not private itself.

    Examples: [bold]fedpress audit runs/demo[/bold] ·
    [bold]fedpress audit runs/demo --attack loss --gate --max-auc 0.6[/bold]
    """
    limits = plans.load(run / "plan.toml").audit if (run / "plan.toml").is_file() else Audit()
    given = {"max_auc": max_auc, "max_epsilon": max_epsilon, "shadows": shadows}
    limits = limits.model_copy(update={key: value for key, value in given.items() if value is not None})
    examine(run, attack or (), limits, seed, gate=gate)


def examine(run: Path, attacks: Sequence[str], limits: Audit, seed: int, *, gate: bool) -> None:
    """Audit a run and show what was found. Raises PrivacyError where it does not pass the ``gate``."""
    from fedpress.simulations.audit import findings as audits
    from fedpress.simulations.audit.run import audit_run
    from fedpress.simulations.benchmarks.steps import Steps

    with Steps(console, "audit") as steps:
        found = audit_run(run, steps, attacks, limits.shadows, seed)
    wide.print(audits.table(found))
    try:
        from fedpress.simulations.audit.plots import draw

        if found.membership:
            draw(found, run)
        _write_report(run)
    except MissingExtra as missing:
        complaints.print(f"No audit.png: {escape(str(missing))}")
    if gate and (faults := audits.faults(found, limits)):
        raise PrivacyError("The audit does not pass: " + "; ".join(faults) + ".")
    console.print(f"{run / audits.AUDIT_FILE}, and what it shows in {run / 'audit.png'} and the report.")


def _write_report(run: Path) -> None:
    """With the uncompressed twin beside it, if the run has one."""
    from fedpress.simulations.report import write_report

    twin = run / "baseline"
    write_report(run, twin if twin.is_dir() else None)
