"""What compression did to a run's updates is noted beside the vaults, adds up, and is drawn; nothing of it is sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpress.client.probe import Encoding
from fedpress.compression.codec import Context
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import DataError
from fedpress.plan import load
from fedpress.simulations import distortion
from fedpress.simulations.engines import simulate
from fedpress.simulations.report import write_report


def test_layers_count_errors_and_zeros() -> None:
    delta = {"a": np.array([[4.0, 0.1], [-4.0, 0.0]], np.float32), "b": np.array([0.2], np.float32)}
    found = distortion.layers(Encoding(parse("topk:0.4"), delta, {}, Context(), Stream(0)))
    assert [(layer.size, layer.zeros) for layer in found.values()] == [(4, 2), (1, 1)]
    assert [sum(layer.counts) for layer in found.values()] == [4, 1]
    assert found["a"].counts[distortion.CELLS // 2] >= 3  # the two that arrived, and the zero


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_notes_its_last_round_and_the_report_shows_it(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = load(
        None, [f"run.out={tmp_path}", "run.rounds=2", "clients.count=2", f"engine.name={engine}", "upload.codec=ecsq:3"]
    )
    result = simulate(plan)
    layers = distortion.read(plan.directory)
    assert sum(layer.size for layer in layers.values()) == 2 * result.summary.parameters
    assert all(sum(layer.counts) == layer.size for layer in layers.values())
    assert 0.5 < layers["body.0.weight"].zeros / layers["body.0.weight"].size < 1
    html = write_report(plan.directory).read_text(encoding="utf-8")
    assert 'id="errors"' in html
    assert 'id="zeros"' in html
    assert "body.0.weight" in html
    (plan.directory / "clients" / "client-000" / distortion.FILE).write_text('{"a": 1}')
    with pytest.raises(DataError, match="noted"):
        distortion.read(plan.directory)
