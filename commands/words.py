"""The words that verbs have in common, and the plan that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedpress import plan as plans
from fedpress.errors import PlanError
from fedpress.plan import Plan
from fedpress.privacy import central
from fedpress.server.strategies import build as build_strategy

#: What --privacy takes where a plan names no codecs: docs/privacy.md has what the usual ones cost on top of noise.

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
Guard = Annotated[
    Literal["local", "central"] | None,
    typer.Option(
        "--privacy",
        help="Differential privacy: of examples, by devices (local); of whole clients, by the server (central).",
        show_default=False,
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(min=0.0, help="With --privacy: what the run may spend; noise is solved for.", show_default=False),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, such as runs/demo.")]


def read_plan(words: list[str] | None) -> Plan:
    """The plan that words on the command line describe: a file, or a task by name or path, then overrides."""
    plan = _read(list(words or ()))
    build_strategy(plan)  # refuses what does not go together, before anything starts
    if plan.privacy.mode == "central":
        central.check(plan)
    return plan


def guarded(words: list[str] | None, mode: str | None, epsilon: float | None) -> list[str]:
    """The overrides that --privacy and --epsilon stand for: for central privacy also the keys it cannot do without,
    unless ``words``, or the plan that they name, give them."""
    if mode is None:
        if epsilon is not None:
            raise PlanError("Expected --privacy local or --privacy central with --epsilon.")
        return []
    said = [f"privacy.mode={mode}"]
    if epsilon is not None:
        if any(word.partition("=")[0].strip() == "privacy.epsilon" for word in words or ()):
            raise PlanError("Expected --epsilon or privacy.epsilon, got both.")
        said.append(f"privacy.epsilon={epsilon}")
    plan = _read([*(words or ()), *said])
    keys: dict[str, str] = {}
    if mode == "central":
        keys["strategy.weighting"] = "uniform"
        if not plan.privacy.metrics_noise:
            keys["evaluate.clients_every"] = "0"
    for key, value in keys.items():
        section, _, name = key.partition(".")
        if name not in getattr(plan, section).model_fields_set:
            said.append(f"{key}={value}")
    return said


def _read(words: list[str]) -> Plan:
    target = words.pop(0) if words and "=" not in words[0] else None
    if target is None or target.endswith(".toml"):
        return plans.load(Path(target) if target else None, words)
    named = [] if any(w.startswith("run.name=") for w in words) else [f'run.name="{Path(target).stem}"']
    return plans.load(None, [f'task.name="{target}"', *named, *words])
