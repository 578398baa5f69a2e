"""``fedpress bench privacy``: every arm is a plan that can run; what compression costs is computed right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedpress import torch_model
from fedpress.errors import PlanError
from fedpress.plan import Download, Upload
from fedpress.privacy import central
from fedpress.server.strategies import build
from fedpress.simulations.benchmarks import privacy
from fedpress.simulations.benchmarks.privacy import CODECS, DEFAULT, EPSILONS, NONE, RAW, SETTINGS
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
        assert all(getattr(raw, section) == getattr(default, section) for section in sections), "codecs alone differ"
        assert raw.strategy.lr > 0, "or it would be the codec's"
    assert len(directories) == len(EPSILONS) * len(CODECS)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="setting 'femnist'"):
        privacy.plan_of("femnist", 1.0, RAW, 0, tmp_path)


def test_the_cost_of_compression_is_the_mean_difference_of_pairs() -> None:
    def result(accuracy: float, epsilon: float, sent: int) -> Result:
        return Result(Path(), replace(_SUMMARY, accuracy=accuracy, epsilon=epsilon, bytes_up=sent), ())

    found = {
        RAW: [result(0.80, 2.9, 4000), result(0.84, 2.8, 6000)],
        DEFAULT: [result(0.79, 2.7, 100), result(0.81, 2.95, 300)],
    }
    row = privacy.compare("some", 3.0, found)
    assert row.cost == pytest.approx(2.0)  # points: 1 and 3
    assert row.cost_error == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert row.spent == 2.95, "by whichever run spent most"
    assert row.uploaded == {RAW: 5000, DEFAULT: 200}
    assert privacy.compare("some", 3.0, {c: runs[:1] for c, runs in found.items()}).cost_error == 0.0


def test_a_run_says_what_it_spent_and_leaves_no_vaults(tmp_path: Path) -> None:
    small = ["task.name=digits", "clients.count=12", "cohort.fraction=0.5", "run.rounds=2", "train.max_steps=1"]
    rows = privacy.run(["fashion-mnist / central"], [8.0, NONE], [0], tmp_path, small)
    assert [row.epsilon for row in rows] == [8.0, NONE]
    assert rows[0].spent is not None
    assert 7.5 < rows[0].spent <= 8.0
    assert rows[1].spent is None
    assert all(0 < row.uploaded[DEFAULT] < row.uploaded[RAW] / 4 for row in rows)
    assert privacy.table(rows).row_count == 2
    assert [row["setting"] for row in json.loads((tmp_path / "privacy.json").read_text())] == [r.setting for r in rows]
    assert not list(tmp_path.glob("*/clients"))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}
    assert len(kept) == 4
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
