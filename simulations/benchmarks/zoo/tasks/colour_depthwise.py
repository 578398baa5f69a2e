"""Drawn pictures in colour with a depthwise CNN with GroupNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import pictures
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``pictures.colours``."""
    return pictures.colours()


def model() -> Any:
    """Three convolutions, two of them depthwise."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn, group_norm

    return cnn((3, 32, 64, 128), 10, group_norm, depthwise=True)
