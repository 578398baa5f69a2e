"""``fedpress bench zoo --strategies``: every strategy with the default codecs beside itself uncompressed, in two cells.

A perceptron and a CNN with BatchNorm, 20 skewed clients, few rounds. Options are those of ``bench strategies``, and the
server's rate is the strategy's own, the same for all arms. Personalised strategies are measured by clients on what they
hold out, the others by the server. Asynchronous ones make as many updates as the others' rounds have, one or ten to a
version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fedpress import plan as plans
from fedpress.plan import Plan
from fedpress.server.strategies import STRATEGIES
from fedpress.simulations.benchmarks.settings import QUIET
from fedpress.simulations.benchmarks.studies import STUDIES
from fedpress.simulations.benchmarks.traffic import file_name
from fedpress.simulations.benchmarks.zoo.cells import task
from fedpress.simulations.benchmarks.zoo.runs import Arms, Planned, Run

_ALL: Final = ("clients.count=20", "clients.partition=dirichlet", "clients.alpha=0.1", "run.rounds=12")
_PERSONAL: Final = ("clients.holdout=0.25", "evaluate.clients_every=1", "evaluate.server_every=0")
_SERVED: Final = ("clients.holdout=0", "evaluate.clients_every=0")

#: Keys by name; and, of each, the strategies that its model does not go with.
CELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "digits": (task("digits_mlp"), *_ALL, "train.lr=0.1", "train.batch_size=8"),
    "fashion with BatchNorm": (task("fashion_bn"), *_ALL, "train.lr=0.1", "train.max_steps=5"),
}
_WITHOUT: Final[Mapping[str, tuple[str, ...]]] = {"digits": ("fedbn",), "fashion with BatchNorm": ()}


def options(strategy: str) -> tuple[str, ...]:
    """A strategy's keys, as the first arm of ``bench strategies`` that has it; of one that no arm has, its name."""
    named = f"strategy.name={strategy}"
    arms = [keys for study in STUDIES.values() for keys in study.arms.values()]
    return next((tuple(keys) for keys in arms if named in keys), (named,))


def is_personal(strategy: str) -> bool:
    """The strategy gives each client a model of its own."""
    study = STUDIES["personalized"]
    return strategy == "fedbn" or any(f"strategy.name={strategy}" in keys for keys in study.arms.values())


def planned(arms: Arms, seeds: Sequence[int], out: Path, more: Sequence[str] = ()) -> Planned:
    """The plans of all strategies in both cells with all arms and seeds. In a table, the cells are the halves, and the
    strategies the cells. ``more``: keys for all runs. Raises PlanError."""
    runs = [
        Run(cell, strategy, arm, seed)
        for cell, without in _WITHOUT.items()
        for strategy in STRATEGIES
        if strategy not in without
        for arm in arms
        for seed in seeds
    ]
    return {run: _plan(run, [*more, *arms[run.arm]], out) for run in runs}


def _plan(run: Run, keys: Sequence[str], out: Path) -> Plan:
    rate = f"strategy.lr={STRATEGIES[run.cell].server_lr}"
    measured = _PERSONAL if is_personal(run.cell) else _SERVED
    name = file_name("strategies", run.half, run.cell, run.arm, str(run.seed))
    named = (f'run.out="{out}"', f'run.name="{name}"', f"run.seed={run.seed}")
    plan = plans.load(None, [*QUIET, *CELLS[run.half], *measured, rate, *options(run.cell), *keys, *named])
    if not plan.cohort.buffer:
        return plan
    updates = plan.run.rounds * plan.cohort_size(plan.clients.count)
    return plan.model_copy(update={"run": plan.run.model_copy(update={"rounds": updates // plan.cohort.buffer})})
