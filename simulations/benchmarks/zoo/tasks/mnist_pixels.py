"""MNIST in raw units (0 to 255) with a CNN without a norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import pictures
from fedpress.task import Data


def data(directory: Path) -> Data:
    """See ``pictures.mnist``."""
    return pictures.mnist(directory, scale=255.0)


def model() -> Any:
    """Two convolutions and two linear layers."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((1, 8, 16), 10, hidden=32)
