"""The zoo's runs: plans, measured one after the other or in several processes, and what they come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from fedpress import plan as plans
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.simulations.benchmarks.charts import Mark, losses
from fedpress.simulations.benchmarks.settings import QUIET
from fedpress.simulations.benchmarks.traffic import file_name, known, measure
from fedpress.simulations.benchmarks.zoo.arms import RAW
from fedpress.simulations.benchmarks.zoo.cells import CELLS
from fedpress.simulations.benchmarks.zoo.measures import Line, compare
from fedpress.simulations.results import Result

Arms: TypeAlias = Mapping[str, Sequence[str]]
Planned: TypeAlias = "Mapping[Run, Plan]"
Tick: TypeAlias = Callable[[str, Plan], events.Listener]

#: Of every run: all data are for training, and the server's rate is the same for all arms, whatever their codecs.
_ALL: Final = (*QUIET, "clients.holdout=0", "strategy.lr=1")


class Run(NamedTuple):
    """One run, by what it is of; ``half`` and ``cell`` say where it stands in a table."""

    half: str
    cell: str
    arm: str
    seed: int


def planned(cells: Sequence[str], arms: Arms, seeds: Sequence[int], out: Path, more: Sequence[str] = ()) -> Planned:
    """The plans of cells with all arms and seeds. ``more``: keys for all runs. Raises PlanError."""
    runs = [Run(known("cell", c, CELLS).half, c, arm, seed) for c in cells for arm in arms for seed in seeds]
    return {run: _plan(run, [*CELLS[run.cell].keys, *more, *arms[run.arm]], out) for run in runs}


def _plan(run: Run, keys: Sequence[str], out: Path) -> Plan:
    name = file_name(run.cell, run.arm, str(run.seed))
    return plans.load(None, [*_ALL, *keys, f'run.out="{out}"', f'run.name="{name}"', f"run.seed={run.seed}"])


def lines(
    runs: Planned, workers: int = 1, fresh: Collection[str] = (), tick: Tick = lambda *_: lambda _: None
) -> list[Line]:
    """Measure all; a line for each cell and arm.

    Args:
        runs: those of the arm ``raw`` among them. Kept ones are not run again, if their plans are the same.
        workers: processes that measure, each one run at a time; 1: this one.
        fresh: arms of which no kept run counts.
        tick: hears of every run before it begins (with several processes: when it is done), and gives what listens
            to it.

    Raises:
        FedpressError: where a plan cannot be run.
    """
    for run, plan in runs.items():
        if run.arm in fresh:
            shutil.rmtree(plan.directory, ignore_errors=True)
    found: dict[Run, Result] = {}
    if workers == 1:
        for run, plan in runs.items():
            found[run] = _measured(plan, tick(_text(run), plan))
    else:
        found = _together(runs, workers, tick)
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run[:3], []).append(run)
    out = []
    for (half, cell, arm), ours in groups.items():
        theirs = [found[run._replace(arm=RAW)] for run in ours]
        metric = runs[ours[0]].stop.metric
        out.append(compare(half, cell, arm, metric, theirs, [found[run] for run in ours]))
    return out


def save(found: Sequence[Line], arms: Arms, stem: Path) -> list[Path]:
    """Write the lines with their arms' keys as JSON, and the drawing as SVG and PNG, to ``stem`` with their suffixes;
    their paths."""
    data = stem.with_suffix(".json")
    rows = [asdict(line) | {"keys": list(arms[line.arm])} for line in found]
    data.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    halves = dict.fromkeys(line.half for line in found)
    drawn = [line for half in halves for line in found if line.half == half]
    marks = {
        arm: [Mark(line.gain_lost, line.gain_lost_mid, line.ratio) for line in drawn if line.arm == arm]
        for arm in arms
        if arm != RAW
    }
    cells = [(line.half, line.cell) for line in drawn if line.arm == RAW]
    return [data, *losses(marks, cells, stem)] if marks else [data]


def _together(runs: Planned, workers: int, tick: Tick) -> dict[Run, Result]:
    """The results, measured by so many processes."""
    found = {}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = {pool.submit(_measured, plan): run for run, plan in runs.items()}
        try:
            for done in as_completed(waiting):
                run = waiting[done]
                found[run] = done.result()
                tick(_text(run), runs[run])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _measured(plan: Plan, listen: events.Listener = lambda _: None) -> Result:
    """As ``measure``; what clients kept, which nothing reads any more, is removed."""
    result = measure(plan, listen)
    shutil.rmtree(plan.directory / "clients", ignore_errors=True)
    return result


def _text(run: Run) -> str:
    return f"{run.cell}; {run.arm}, seed {run.seed}"
