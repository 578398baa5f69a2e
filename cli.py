"""``fedpress``: the command line, thin. The table of its verbs, each a function in ``commands``, and how errors end.

Every verb reads its words, calls one function and shows what came of it. What takes long to import is imported there.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.markup import escape

from fedpress import __version__
from fedpress.commands import bench, plan
from fedpress.commands.device import client, fetch
from fedpress.commands.finished import audit, privacy, report, ship
from fedpress.commands.listing import codecs, data, strategies
from fedpress.commands.running import server, simulate
from fedpress.commands.screen import complaints, console
from fedpress.errors import FedpressError, PlanError

app = typer.Typer(
    name="fedpress",
    help="Federated learning with compressed communication.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (simulate, server, client, ship, audit, fetch, data, report, privacy, codecs, strategies):
    app.command()(verb)
app.add_typer(plan.app, name="plan")
app.add_typer(bench.app, name="bench")


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
