"""``fedpress bench strategies``: every arm is a plan that can run, and rows say what the runs came to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpress import torch_model
from fedpress.errors import PlanError
from fedpress.server.strategies import STRATEGIES, build
from fedpress.simulations.benchmarks import studies
from fedpress.simulations.benchmarks.settings import task_of
from fedpress.simulations.benchmarks.studies import STUDIES
from fedpress.simulations.tasks import load_task


def test_every_arm_is_a_plan_and_every_strategy_is_in_a_study(tmp_path: Path) -> None:
    tasks = {task_of(setting) for of in STUDIES.values() for setting in of.settings}
    specs = {task: torch_model.spec_of(torch_model.build(load_task(task), 0)) for task in tasks}
    seen, directories = set(), []
    for study, of in STUDIES.items():
        for setting in of.settings:
            for arm in of.arms:
                plan = studies.plan_of(study, setting, arm, 0, tmp_path)
                strategy = build(plan)
                assert strategy.layout(specs[plan.task.name]) or strategy.id == "local"
                seen.add(strategy.id)
                directories.append(plan.directory)
                if plan.cohort.buffer:
                    first = studies.plan_of(study, setting, next(iter(of.arms)), 0, tmp_path)
                    updates = first.run.rounds * first.cohort_size(first.clients.count)
                    assert plan.run.rounds * plan.cohort.buffer == updates, "as many updates as the rounds have"
    assert len(set(directories)) == len(directories)
    assert seen == set(STRATEGIES) - {"fedbn"}  # the tasks' models have no batch normalisation
    with pytest.raises(PlanError, match="arm 'fedbuf'"):
        studies.plan_of("asynchronous", "digits", "fedbuf", 0, tmp_path)


def test_a_row_says_what_the_runs_came_to(tmp_path: Path) -> None:
    small = ["clients.count=6", "cohort.fraction=0.5", "run.rounds=12", "train.lr=0.2"]
    rows = studies.run("asynchronous", ["digits"], ["over-select, fold late"], [0], tmp_path, small)
    first, other = rows
    assert (first.arm, first.seeds, first.reached) == ("fedavg", 1, 1), "its own target is within reach"
    assert first.accuracy is not None
    assert first.time is not None
    assert first.rounds is not None
    assert first.traffic is not None
    assert 3 <= first.rounds <= 12
    assert 0 < first.traffic <= first.total
    assert other.reached in (0, 1)
    assert studies.table(rows, STUDIES["asynchronous"].shows).row_count == 2
    saved = json.loads(studies.save(rows, tmp_path).read_text(encoding="utf-8"))
    assert saved[0]["accuracy"] == first.accuracy
    began = (tmp_path / "asynchronous-digits-fedavg-0" / "summary.json").stat().st_mtime_ns
    assert studies.run("asynchronous", ["digits"], ["fedavg"], [0], tmp_path, small) == rows[:1], "kept, not run again"
    assert (tmp_path / "asynchronous-digits-fedavg-0" / "summary.json").stat().st_mtime_ns == began
