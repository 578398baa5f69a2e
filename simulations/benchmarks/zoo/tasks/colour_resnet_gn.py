"""Drawn pictures in colour with a residual CNN with GroupNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import pictures
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``pictures.colours``."""
    return pictures.colours()


def model() -> Any:
    """A convolution and two residual blocks."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import group_norm, resnet

    return resnet((3, 16, 32, 64), 10, group_norm)
