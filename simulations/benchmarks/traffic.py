"""``fedpress bench traffic``: accuracy against traffic in both directions, on real data.

Every task runs with every seed in every arm, inline. An arm is an upload codec, a download codec and how many times the
uncompressed run's rounds it is given. What is compared is in ``benchmarks.comparison``. Finished runs are kept and not
run again unless their plan has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

from fedpress import plan as plans
from fedpress.errors import PlanError, closest
from fedpress.plan import Plan
from fedpress.sections import AUTO
from fedpress.server import events
from fedpress.simulations.benchmarks.charts import accuracy_by_traffic
from fedpress.simulations.benchmarks.comparison import Line, compare, mean_curve
from fedpress.simulations.benchmarks.settings import QUIET, SETTINGS, task_of
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import SUMMARY_FILE, Result

T = TypeVar("T")


@dataclass(frozen=True)
class Arm:
    """What goes up, what comes down, and how many times the rounds."""

    upload: str
    download: str
    mode: str = "delta"
    rounds: float = 1.0


FP32: Final = "fp32"
#: All with the same server rate.
ARMS: Final[Mapping[str, Arm]] = {
    FP32: Arm("raw", "raw", "full"),
    "default": Arm(AUTO, AUTO),
    "dead zone": Arm("ef:0.9+predict:0.5+nmse:0.6", "nmse:0.6,ladder=true"),
    "small": Arm("dgc:0.7+ecsq:6", "ecsq:4,ladder=true"),
    "top-k": Arm("ef+topk:0.02+int8", "int8"),
}


def plan_of(task: str, arm: str, seed: int, out: Path, more: Sequence[str]) -> Plan:
    """One run's plan; ``more`` are further keys, for all runs. Raises PlanError."""
    settings, sent = known("settings", task, SETTINGS), known("arm", arm, ARMS)
    codecs = (f"upload.codec={sent.upload}", f"download.codec={sent.download}", f"download.mode={sent.mode}")
    named = (f'run.out="{out}"', f'run.name="{file_name(task, arm, str(seed))}"', f"run.seed={seed}")
    plan = plans.load(None, [*QUIET, *settings, f"task.name={task_of(task)}", *codecs, "strategy.lr=1", *named, *more])
    rounds = max(1, round(plan.run.rounds * sent.rounds))
    return plan.model_copy(update={"run": plan.run.model_copy(update={"rounds": rounds})})


def measure(plan: Plan, listen: events.Listener = lambda _: None) -> Result:
    """The plan's result; the one that is there already, if its plan is the same."""
    if (plan.directory / SUMMARY_FILE).exists() and _kept(plan) == plan:
        return Result.read(plan.directory)
    return simulate(plan, listen, fresh=True)


def _kept(plan: Plan) -> Plan | None:
    """The plan of the run that is there, keys that it is too old to know at their defaults; None: not a plan today."""
    try:
        return plans.load(plan.directory / "plan.toml")
    except PlanError:
        return None


def run(
    tasks: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    more: Sequence[str] = (),
    tick: Callable[[str, Plan], events.Listener] = lambda *_: lambda _: None,
) -> list[Line]:
    """Measure all; write ``traffic.json`` and a drawing per task into ``out``.

    ``tick`` is told of every run before it begins and gives what listens to it. Raises FedpressError.
    """
    arms = list(dict.fromkeys((FP32, *arms)))
    planned = {(t, a): [plan_of(t, a, seed, out, more) for seed in seeds] for t in tasks for a in arms}
    lines: list[Line] = []
    for task in tasks:
        found: dict[str, list[Result]] = {}
        for arm in arms:
            found[arm] = [measure(p, tick(f"{task}, {arm}, seed {p.run.seed}", p)) for p in planned[task, arm]]
            lines.append(compare(task, arm, found[FP32], found[arm]))
        curves = {arm: mean_curve(results) for arm, results in found.items()}
        accuracy_by_traffic(curves, task, out / file_name("traffic", task))
        rows = [asdict(line) | {"codecs": asdict(ARMS[line.arm])} for line in lines]
        (out / "traffic.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return lines


def file_name(*words: str) -> str:
    """Letters and digits of the words, with dashes between."""
    return "-".join(re.findall(r"[A-Za-z0-9]+", " ".join(words)))


def known(what: str, name: str, table: Mapping[str, T]) -> T:
    """An entry of a table. Raises PlanError, naming the closest, for one that is not there."""
    if name not in table:
        raise PlanError(f"Unknown {what} '{name}'. {closest(name, table)}")
    return table[name]
