"""Downloads of whole runs on real digits, where devices come and go: what they cost; all ways give one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.params import Array
from fedpress.plan import load
from fedpress.server.versions import Versions
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import Result

#: Prediction would depend on the way a model came.
FEW = ("clients.count=12", "cohort.fraction=0.25", "run.rounds=12", "upload.codec=ef+ecsq:3")


def run(out: Path, *overrides: str) -> Result:
    settings = ("engine.name=inline", "upload.codec=ef+predict:0.5+ecsq:3", "download.codec=ecsq:3,ladder=true")
    return simulate(load(None, [f"run.out={out}", "evaluate.clients_every=0", *settings, *overrides]))


def downloads(result: Result) -> float:
    """Models fetched."""
    return result.summary.bytes_down_uncompressed / (4 * result.summary.parameters)


def test_who_takes_part_in_every_round_pays_for_steps_and_nothing_for_the_first(tmp_path: Path) -> None:
    result = run(tmp_path, "clients.count=3", "run.rounds=4")
    assert [r.bytes_down == 0 for r in result.rounds] == [True, True, False, False, False]
    assert result.summary.bytes_down < result.summary.bytes_down_uncompressed / 60


def test_who_comes_seldom_pays_less_than_for_all_that_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = run(tmp_path / "joint", *FEW)
    short = run(tmp_path / "short", *FEW, "download.history=1")
    monkeypatch.setattr(Versions, "_direct_link", lambda *_: None)
    chain = run(tmp_path / "chain", *FEW)
    assert joint.summary.model == short.summary.model == chain.summary.model, "whatever way they came"
    assert joint.summary.bytes_down < 0.8 * chain.summary.bytes_down
    assert joint.summary.bytes_down < short.summary.bytes_down < downloads(short) * 4 * short.summary.parameters / 16


def test_a_machine_that_initialises_otherwise_pays_for_one_whole_model_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("clients.count=3", "run.rounds=4")
    alike = run(tmp_path / "alike", *few)
    initial: Any = TorchTrainer.initial

    def other(self: TorchTrainer, seed: int) -> dict[str, Array]:
        made: dict[str, Array] = initial(self, seed)
        return {n: np.nextafter(a, np.float32(9)) * np.float32(1.001) for n, a in made.items()}

    monkeypatch.setattr(TorchTrainer, "initial", other)
    result = run(tmp_path / "other", *few)
    assert result.summary.model == alike.summary.model
    assert result.rounds[1].bytes_down == 3 * 4 * result.summary.parameters
    assert [r.bytes_down for r in result.rounds[2:]] == [r.bytes_down for r in alike.rounds[2:]]
