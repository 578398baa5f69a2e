"""``fedpress bench strategies``: strategies side by side on real data, each with the default compressed codecs.

A study is a list of settings, of arms, and of what its table shows. The first arm of a study is what the others are
compared with: its mean final accuracy, less ``_SLACK`` of it, is the target, reached in the first round whose accuracy,
averaged with the two before, is no lower. Options of the arms are those of the papers' own experiments, or the best of
a few tried on seed 0, never on the seeds of the table alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from fedpress import plan as plans
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.simulations import units
from fedpress.simulations.benchmarks.comparison import reached
from fedpress.simulations.benchmarks.settings import task_of
from fedpress.simulations.benchmarks.traffic import file_name, known, measure
from fedpress.simulations.results import Result

_SLACK: Final = 0.02

_MANY: Final = ("clients.count=100", "cohort.fraction=0.1", "train.lr=0.05", "evaluate.clients_every=0")
_OWNERS: Final = ("clients.partition=natural", "clients.holdout=0.25", "evaluate.server_every=0")
_FLEET: Final = (
    "engine.clock=virtual",
    "clients.count=100",
    "clients.partition=dirichlet",
    "train.lr=0.05",
    "fleet.slow_share=0.33",
    "fleet.slow_factor=10",
    "fleet.step_spread=0.3",
    "evaluate.clients_every=0",
)
#: Asynchronous arms make a version of ten updates, like the synchronous ones, or of one.
_HEAD: Final = 'strategy.personal=["head.*"]'


@dataclass(frozen=True)
class Study:
    """``settings`` and ``arms``: keys by name. ``shows``: columns of the table."""

    settings: Mapping[str, Sequence[str]]
    arms: Mapping[str, Sequence[str]]
    shows: Sequence[str]


STUDIES: Final[Mapping[str, Study]] = {
    "global": Study(
        {
            "fashion-mnist / 0.1": (*_MANY, "clients.alpha=0.1", "run.rounds=40"),
            "fashion-mnist / 0.3": (*_MANY, "clients.alpha=0.3", "run.rounds=40"),
            "femnist / 0.1": (*_MANY, "clients.alpha=0.1", "run.rounds=60", "train.batch_size=16", "train.lr=0.2"),
            "femnist / 0.3": (*_MANY, "clients.alpha=0.3", "run.rounds=60", "train.batch_size=16", "train.lr=0.2"),
        },
        {
            "fedavg": (),
            "fedavg, uniform": ("strategy.weighting=uniform",),
            "fedprox": ("strategy.name=fedprox", "strategy.mu=0.01"),
            "scaffold": ("strategy.name=scaffold",),
            "fednova": ("strategy.name=fednova",),
            "feddyn": ("strategy.name=feddyn", "strategy.alpha=0.1"),
            "moon": ("strategy.name=moon", "strategy.mu=1"),
            "fedavgm": ("strategy.name=fedavgm", "strategy.lr=1"),
            "fedadam": ("strategy.name=fedadam",),
            "fedyogi": ("strategy.name=fedyogi",),
            "fedadagrad": ("strategy.name=fedadagrad",),
        },
        ("accuracy", "rounds", "traffic", "total"),
    ),
    "personalized": Study(
        {
            "femnist": (*_OWNERS, "clients.count=105", "cohort.fraction=0.2", "run.rounds=60", "train.batch_size=16",
                        "train.epochs=2", "train.lr=0.05"),
            "har": (*_OWNERS, "clients.count=30", "run.rounds=30", "train.epochs=2", "train.lr=0.05"),
            "shakespeare": (
                *_OWNERS,
                "clients.count=40",
                "run.rounds=20",
                "train.batch_size=8",
                "train.lr=0.3",
            ),
        },
        {
            "fedavg": (),
            "local": ("strategy.name=local",),
            "finetune": ("strategy.name=finetune",),
            "fedper": ("strategy.name=fedper", _HEAD),
            "fedrep": ("strategy.name=fedrep", _HEAD),
            "lg-fedavg": ("strategy.name=lg-fedavg", 'strategy.personal=["body.0.*"]'),
            "fedbabu": ("strategy.name=fedbabu", _HEAD),
            "ditto": ("strategy.name=ditto",),
            "pfedme": ("strategy.name=pfedme",),
            "apfl": ("strategy.name=apfl",),
            "per-fedavg": ("strategy.name=per-fedavg",),
            "fedala": ("strategy.name=fedala",),
            "ifca": ("strategy.name=ifca",),
        },
        ("personal", "worst decile", "total"),
    ),
    "asynchronous": Study(
        {
            "digits": (*_FLEET, "clients.alpha=0.3", "cohort.fraction=0.2", "run.rounds=60", "train.epochs=5",
                       "train.batch_size=8"),
            "fashion-mnist": (*_FLEET, "clients.alpha=0.3", "cohort.fraction=0.1", "run.rounds=40"),
        },
        {
            "fedavg": (),
            "over-select": ("cohort.over_select=1.5",),
            "over-select, fold late": ("cohort.over_select=1.5", "cohort.late=fold"),
            "fedbuff": ("strategy.name=fedbuff", "cohort.buffer=10", "cohort.concurrency=20"),
            "fedavg, buffer": ("cohort.buffer=10", "cohort.concurrency=20"),
            "fedasync": ("strategy.name=fedasync", "cohort.buffer=1", "cohort.concurrency=20"),
        },
        ("accuracy", "time", "traffic"),
    ),
}  # fmt: skip
#: Updates in place of rounds: an asynchronous arm's versions are as many updates as the first arm's rounds had.
QUIET: Final = ("engine.name=inline", "run.checkpoint_every=0")


@dataclass(frozen=True)
class Row:
    """An arm in a setting, over its seeds. ``rounds``, ``traffic`` (bytes) and ``time`` (seconds): until the target, in
    the mean of the seeds that ``reached`` it; ``total``: bytes of the whole run. None: not measured, or never."""

    study: str
    setting: str
    arm: str
    seeds: int
    accuracy: float | None
    spread: float
    personal: float | None
    worst_decile: float | None
    reached: int
    rounds: float | None
    traffic: float | None
    time: float | None
    total: float
    keys: Sequence[str] = field(default_factory=tuple)


def plan_of(study: str, setting: str, arm: str, seed: int, out: Path, more: Sequence[str] = ()) -> Plan:
    """One run's plan. Raises PlanError."""
    of = known("study", study, STUDIES)
    settings, arms = known("setting", setting, of.settings), known("arm", arm, of.arms)
    named = (f'run.out="{out}"', f'run.name="{file_name(study, setting, arm, str(seed))}"', f"run.seed={seed}")
    plan = plans.load(None, [*QUIET, f"task.name={task_of(setting)}", *settings, *arms, *named, *more])
    if not plan.cohort.buffer:
        return plan
    updates = plan.run.rounds * plan.cohort_size(plan.clients.count)
    return plan.model_copy(update={"run": plan.run.model_copy(update={"rounds": updates // plan.cohort.buffer})})


def run(
    study: str,
    settings: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    more: Sequence[str] = (),
    tick: Callable[[str, Plan], events.Listener] = lambda *_: lambda _: None,
) -> list[Row]:
    """Measure all. ``tick`` is told of every run before it begins and gives what hears it. Raises FedpressError."""
    of = known("study", study, STUDIES)
    first = next(iter(of.arms))
    arms = list(dict.fromkeys((first, *(arms or of.arms))))
    planned = {
        (s, a): [plan_of(study, s, a, seed, out, more) for seed in seeds] for s in settings or of.settings for a in arms
    }
    rows: list[Row] = []
    for setting in settings or of.settings:
        target = 0.0
        for arm in arms:
            plans_ = planned[setting, arm]
            found = [measure(p, tick(f"{setting}, {arm}, seed {p.run.seed}", p)) for p in plans_]
            if arm == first:
                target = (1 - _SLACK) * (_mean([r.summary.accuracy for r in found]) or 0.0)
            rows.append(_row(study, setting, arm, found, target, of.arms[arm]))
    return rows


def table(rows: Sequence[Row], shows: Sequence[str]) -> Table:
    """Rows side by side."""
    out = Table("setting", "arm", *(f"{name}\n{_HEADS[name]}" for name in shows))
    for row in rows:
        out.add_row(escape(row.setting), escape(row.arm), *(_CELLS[name](row) for name in shows))
    return out


def save(rows: Sequence[Row], out: Path) -> Path:
    """Keep the rows as JSON in ``out``; the file."""
    path = out / f"strategies-{rows[0].study}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")
    return path


def _row(study: str, setting: str, arm: str, found: Sequence[Result], target: float, keys: Sequence[str]) -> Row:
    final = [r.summary.accuracy for r in found if r.summary.accuracy is not None]
    there = [at for r in found if (at := reached(r, target)) is not None] if final else []
    return Row(
        study=study,
        setting=setting,
        arm=arm,
        seeds=len(found),
        accuracy=_mean(final),
        spread=statistics.pstdev(final) if final else 0.0,
        personal=_mean([r.summary.personal_accuracy for r in found]),
        worst_decile=_mean([r.summary.personal_worst_decile for r in found]),
        reached=len(there),
        rounds=_mean([at.round for at in there]),
        traffic=_mean([at.sent for at in there]),
        time=_mean([at.seconds for at in there]),
        total=statistics.mean(r.summary.bytes_up + r.summary.bytes_down for r in found),
        keys=tuple(keys),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.mean(there) if there else None


def _or_never(row: Row, value: float | None, write: Callable[[float], str]) -> str:
    some = f" ({row.reached} of {row.seeds})" if 0 < row.reached < row.seeds else ""
    return "never" if value is None else write(value) + some


_HEADS: Final = {
    "accuracy": "at the end",
    "rounds": "to the target",
    "traffic": "to the target",
    "time": "to the target, virtual",
    "total": "traffic",
    "personal": "accuracy",
    "worst decile": "of clients",
}
_CELLS: Final[Mapping[str, Callable[[Row], str]]] = {
    "accuracy": lambda r: "-" if r.accuracy is None else f"{units.share(r.accuracy)} ± {100 * r.spread:.1f}",
    "rounds": lambda r: _or_never(r, r.rounds, lambda v: f"{v:.0f}"),
    "traffic": lambda r: _or_never(r, r.traffic, lambda v: units.size(round(v))),
    "time": lambda r: _or_never(r, r.time, units.duration),
    "total": lambda r: units.size(round(r.total)),
    "personal": lambda r: "-" if r.personal is None else units.share(r.personal),
    "worst decile": lambda r: "-" if r.worst_decile is None else units.share(r.worst_decile),
}
