"""``fedpress bench privacy``: every arm is a plan that can run; what compression costs is computed right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedpress import torch_model
from fedpress.errors import PlanError
from fedpress.privacy import central
from fedpress.sections import Download, Upload
from fedpress.server.strategies import build
from fedpress.simulations.benchmarks import privacy
from fedpress.simulations.benchmarks.privacy import CODECS, DEFAULT, EPSILONS, FINE, NONE, RAW, SETTINGS
from fedpress.simulations.results import Result, Summary
from fedpress.simulations.tasks import load_task


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_arm_is_a_plan_that_can_run(setting: str, tmp_path: Path) -> None:
    directories = set()
    for epsilon in EPSILONS:
        plans = {codecs: privacy.plan_of(setting, epsilon, codecs, 0, tmp_path) for codecs in CODECS}
        for plan in plans.values():
            spec = torch_model.spec_of(torch_model.build(load_task(plan.task.name), 0))
            assert build(plan).layout(spec)
            assert plan.privacy.epsilon == epsilon
            assert plan.privacy.delta == 1e-5
            assert plan.privacy.mode == ("none" if epsilon == NONE else setting.split(" / ")[1])
            if plan.privacy.mode == "central":
                central.check(plan)
            directories.add(plan.directory)
        raw, default = plans[RAW], plans[DEFAULT]
        assert (raw.upload.codec, raw.download.codec, raw.download.mode) == ("raw", "raw", "full")
        assert (default.upload, default.download) == (Upload(), Download())
        sections = ("clients", "train", "cohort", "strategy", "privacy", "evaluate", "stop", "task")
        for other in (default, plans[FINE]):
            assert all(getattr(raw, section) == getattr(other, section) for section in sections), "codecs alone differ"
        assert raw.strategy.lr > 0, "or it would be the codec's"
    assert len(directories) == len(EPSILONS) * len(CODECS)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="setting 'femnist'"):
        privacy.plan_of("femnist", 1.0, RAW, 0, tmp_path)


def test_the_cost_of_compression_is_the_mean_difference_of_pairs() -> None:
    def result(accuracy: float, epsilon: float, sent: int) -> Result:
        return Result(Path(), replace(_SUMMARY, accuracy=accuracy, epsilon=epsilon, bytes_up=sent), ())

    theirs = [result(0.80, 2.9, 4000), result(0.84, 2.8, 6000)]
    ours = [result(0.79, 2.7, 100), result(0.81, 2.95, 300)]
    row = privacy.compare("some", 3.0, DEFAULT, theirs, ours)
    assert row.cost == pytest.approx(2.0)  # points: 1 and 3
    assert row.cost_error == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert row.spent == 2.95, "by whichever run spent most"
    assert row.uploaded == 200
    assert privacy.compare("some", 3.0, RAW, theirs, theirs).cost == 0.0
    assert privacy.compare("some", 3.0, DEFAULT, theirs[:1], ours[:1]).cost_error == 0.0


def test_a_run_says_what_it_spent_and_leaves_no_vaults(tmp_path: Path) -> None:
    small = ["task.name=digits", "clients.count=12", "cohort.fraction=0.5", "run.rounds=2", "train.max_steps=1"]
    rows = privacy.run(["fashion-mnist / central"], [8.0, NONE], [0], tmp_path, small)
    assert [(row.epsilon, row.codecs) for row in rows] == [(e, codecs) for e in (8.0, NONE) for codecs in CODECS]
    for row in rows:
        assert row.spent is None if row.epsilon == NONE else row.spent is not None and 7.5 < row.spent <= 8.0
    assert 0 < max(rows[1].uploaded, rows[2].uploaded) < rows[0].uploaded / 4
    assert privacy.table(rows).row_count == len(rows)
    saved = json.loads((tmp_path / "privacy.json").read_text())
    assert [row["accuracies"] for row in saved] == [row.accuracies for row in rows]
    assert not list(tmp_path.glob("*/clients"))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}
    assert len(kept) == len(rows)
    assert privacy.run(["fashion-mnist / central"], [8.0, NONE], [0], tmp_path, small) == rows, "kept, not run again"
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}


_SUMMARY = Summary(
    name="x",
    task="digits",
    strategy="fedavg",
    rounds=2,
    seconds=1.0,
    bytes_up=1,
    bytes_up_uncompressed=1,
    bytes_down=1,
    bytes_down_uncompressed=1,
    upload_codec="raw",
    download_codec="raw",
    parameters=1,
    clients=1,
    engine="inline",
    seed=0,
    model="x",
)
