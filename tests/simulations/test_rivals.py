"""The comparison with others' coders: ours is never worse than theirs in error, and what is printed adds up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpress.client.probe import Encoding
from fedpress.compression.codec import Context
from fedpress.compression.ecsq import Ecsq
from fedpress.compression.stream import Stream
from fedpress.errors import DataError
from fedpress.params import Tensors
from fedpress.simulations.benchmarks import rivals
from fedpress.simulations.tap import passed


def update() -> Tensors:
    draw = np.random.default_rng(3)
    return {"a": draw.laplace(size=(60, 40)).astype(np.float32), "b": draw.laplace(size=40).astype(np.float32)}


def nmse(rate: float) -> float:
    return passed(Encoding(Ecsq(rate), update(), {}, Context(1, 1, None), Stream(1))).nmse


@pytest.mark.parametrize("wanted", rivals.WANTED)
def test_widest_keeps_the_error_and_no_wider_step_does(wanted: float) -> None:
    rate = rivals.widest(update(), wanted)
    assert nmse(rate) <= wanted < nmse(1.05 * rate)


def test_a_rivals_points_are_met_and_told(tmp_path: Path) -> None:
    points = [
        {"setting": setting, "wanted": 0.2, "qp": -9, "size": size, "nmse": 0.19, "seconds": 0.5}
        for setting, size in (("default", 1000), ("slow", 500))
    ]
    stand_in = (
        f"import sys, numpy; assert numpy.load(sys.argv[1])['a'].shape == (60, 40); print({json.dumps(points)!r})"
    )
    pairs = rivals.compare(update(), [sys.executable, "-c", stand_in], tmp_path)
    assert [(p.theirs.setting, p.theirs.size) for p in pairs] == [("default", 1000), ("slow", 500)]
    assert all(p.nmse <= 0.19 and set(p.ours) == {"static", "adaptive", "context"} for p in pairs)

    first, second = rivals.against_nncodec("toy", [*pairs, *pairs])
    assert first[:5] == ["toy", "default", "0.2", "0.190", f"{8 * 1000 / 2440:.4f}"]
    size = pairs[0].ours["context"].payload
    assert first[8] == f"{8 * size / 2440:.4f}"
    assert first[11] == first[12] == f"{size / 1000:.2f}"
    assert second[11] == f"{size / 500:.2f}"
    assert len(rivals.against_zstd("toy", pairs)) == 1


def test_a_rival_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such rival"):
        rivals.compare(update(), [sys.executable, "-c", "raise SystemExit('no such rival')"], tmp_path)
