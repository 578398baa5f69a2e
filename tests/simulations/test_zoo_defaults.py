"""The product's promise on the zoo's smallest cells, in one place: default codecs cost nothing at the same rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.simulations.benchmarks.zoo import cells, runs
from fedpress.simulations.benchmarks.zoo.arms import DEFAULT, parse

_POINTS = 2.0


@pytest.mark.parametrize("cell", cells.chosen("all", small=True))
def test_default_codecs_end_within_two_points_of_raw(cell: str, tmp_path: Path) -> None:
    lines = runs.lines(runs.planned([cell], parse([DEFAULT]), [0], tmp_path))
    default = next(line for line in lines if line.arm == DEFAULT)
    assert default.loss < _POINTS, f"{cell}: {default.loss:.1f} points below raw at the end"
