"""Drawn pictures in colour with a CNN without a norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import pictures
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``pictures.colours``."""
    return pictures.colours()


def model() -> Any:
    """Two convolutions and two linear layers."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((3, 32, 64), 10, hidden=64)
