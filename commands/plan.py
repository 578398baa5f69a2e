"""``fedpress plan``: check a plan, explain its keys, print all of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from fedpress import plan as plans
from fedpress.commands.screen import console
from fedpress.commands.words import Words, read_plan
from fedpress.errors import PlanError, closest

app = typer.Typer(help="Check a plan, explain its keys, print all of it.", no_args_is_help=True)


@app.command()
def check(words: Words = None) -> None:
    """Refuse a plan that cannot run, naming the key; load its task and model too, where torch is there."""
    from fedpress.simulations.problem import Problem

    plan = read_plan(words)
    problem = Problem(plan)
    problem.check()
    parameters = problem.initial.spec.size
    console.print(f"Fine: task '{problem.task.name}', {parameters} parameters, {len(problem.names)} clients.")


@app.command()
def show(words: Words = None) -> None:
    """Print a whole plan with all its defaults, as TOML."""
    console.print(plans.to_toml(read_plan(words)), markup=False, highlight=False)


@app.command()
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
