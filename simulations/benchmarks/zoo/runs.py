"""The zoo's runs: plans, measured one after the other or in several processes, and what they come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from fedpress import plan as plans
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.simulations.benchmarks.charts import Mark, losses
from fedpress.simulations.benchmarks.settings import QUIET
from fedpress.simulations.benchmarks.traffic import file_name, known, measure
from fedpress.simulations.benchmarks.zoo.arms import RAW
from fedpress.simulations.benchmarks.zoo.cells import CELLS, HALVES
from fedpress.simulations.benchmarks.zoo.measures import Line, compare
from fedpress.simulations.results import Result

Arms = Mapping[str, Sequence[str]]
Tick = Callable[[str, Plan], events.Listener]

#: Of every run: all data are for training, and the server's rate is the same for all arms, whatever their codecs.
_ALL: Final = (*QUIET, "clients.holdout=0", "strategy.lr=1")
#: Of the files that are written.
NAME: Final = "zoo"


class Run(NamedTuple):
    """One run, by what it is of."""

    cell: str
    arm: str
    seed: int


def plan_of(run: Run, keys: Sequence[str], out: Path, more: Sequence[str] = ()) -> Plan:
    """One run's plan: the cell's keys, then ``more``, which are for all runs, then the arm's ``keys``.

    Raises PlanError.
    """
    cell = known("cell", run.cell, CELLS)
    name = file_name(run.cell, run.arm, str(run.seed))
    named = (f'run.out="{out}"', f'run.name="{name}"', f"run.seed={run.seed}")
    return plans.load(None, [*_ALL, *cell.keys, *more, *keys, *named])


def measure_all(
    planned: Mapping[Run, Plan],
    workers: int = 1,
    fresh: Collection[str] = (),
    tick: Tick = lambda *_: lambda _: None,
) -> dict[Run, Result]:
    """The results of all plans; those that are there already, if their plans are the same.

    Args:
        planned: the runs.
        workers: processes that measure, each one run at a time; 1: this one.
        fresh: arms of which no kept run counts.
        tick: hears of every run, before it begins (of one in another process, when it is done), and gives what
            listens to it.

    Raises:
        FedpressError: where a plan cannot be run.
    """
    for run, plan in planned.items():
        if run.arm in fresh:
            shutil.rmtree(plan.directory, ignore_errors=True)
    if workers == 1:
        return {run: _measured(plan, tick(_text(run), plan)) for run, plan in planned.items()}
    found: dict[Run, Result] = {}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = {pool.submit(_measured, plan): run for run, plan in planned.items()}
        try:
            for done in as_completed(waiting):
                found[waiting[done]] = done.result()
                tick(_text(waiting[done]), planned[waiting[done]])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def lines(
    cells: Sequence[str],
    arms: Arms,
    seeds: Sequence[int],
    out: Path,
    more: Sequence[str] = (),
    workers: int = 1,
    fresh: Collection[str] = (),
    tick: Tick = lambda *_: lambda _: None,
) -> list[Line]:
    """Measure cells with all arms (see ``arms.parse``) and seeds; a line per cell and arm. Raises FedpressError."""
    planned = {
        run: plan_of(run, arms[run.arm], out, more)
        for run in (Run(cell, arm, seed) for cell in cells for arm in arms for seed in seeds)
    }
    found = measure_all(planned, workers, fresh, tick)
    by_arm = {(c, a): [found[Run(c, a, seed)] for seed in seeds] for c in cells for a in arms}
    return [compare(c, CELLS[c], a, by_arm[c, RAW], by_arm[c, a]) for c in cells for a in arms]


def save(found: Sequence[Line], arms: Arms, out: Path) -> list[Path]:
    """Write the lines with their arms' keys as JSON, and the drawing as SVG and PNG, into ``out``; their paths."""
    data = out / f"{NAME}.json"
    rows = [asdict(line) | {"keys": list(arms[line.arm])} for line in found]
    data.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    drawn = [line for half in HALVES for line in found if line.half == half]
    marks = {
        arm: [Mark(line.gain_lost, line.gain_lost_mid, line.ratio) for line in drawn if line.arm == arm]
        for arm in arms
        if arm != RAW
    }
    cells = [(line.half, line.cell) for line in drawn if line.arm == RAW]
    return [data, *losses(marks, cells, out / NAME)] if marks else [data]


def _measured(plan: Plan, listen: events.Listener = lambda _: None) -> Result:
    """As ``measure``, without what a finished run needs no more: its clients' vaults and the checkpoints."""
    result = measure(plan, listen)
    shutil.rmtree(plan.directory / "clients", ignore_errors=True)
    return result


def _text(run: Run) -> str:
    return f"{run.cell}; {run.arm}, seed {run.seed}"
