"""The verbs that list what there is: data sets, codecs, strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedpress.commands.screen import console, wide
from fedpress.compression import registry


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


def codecs() -> None:
    """List the codecs that update and download chains are made of, with their laws."""
    table = Table("codec", "what it does", "options", "unbiased", "summable", "contractive", "has memory")
    for row in registry.describe():
        options = "\n".join(f"{o.name}={o.default} ({o.expected})" for o in row.options)
        table.add_row(row.id, row.about, options, row.unbiased, row.summable, row.contractive, row.stateful)
    console.print(table)
    console.print(
        "Chains are joined by +, as in [bold]ef+topk:0.01+int8[/bold]; ef, ef21 and dgc wrap all to their right.\n"
        "Laws hold with the default options, or as said. Unbiased: right in the mean. Summable: payloads add up.\n"
        "Contractive: never loses more than there was, so that it can stand behind ef, ef21 and dgc.\n"
        "What a run's codecs lose stands in its closing table and report as fidelity; below watch.floor a run warns."
    )


def strategies() -> None:
    """List the strategies: global, personalized and asynchronous, with their papers, options and needs."""
    from fedpress.server.strategies import describe

    table = Table("strategy", "what it is", "options (strategy.…)", "needs")
    for row in describe():
        table.add_row(row.id, Text(row.about), Text("\n".join(row.options)), Text("\n".join(row.needs) or "nothing"))
    wide.print(table)
    console.print(
        "All have strategy.weighting and strategy.lr too. Example: "
        "[bold]fedpress simulate digits strategy.name=fedprox strategy.mu=0.1[/bold]\n"
        "docs/strategies.md says what each asks of a device, and how to add one."
    )
