"""Fashion-MNIST of scale 0.01 with a CNN with BatchNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import pictures
from fedpress.task import Data


def data(directory: Path) -> Data:
    """See ``pictures.fashion``."""
    return pictures.fashion(directory, scale=0.01)


def model() -> Any:
    """Three convolutions."""
    from torch import nn

    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((1, 16, 32, 64), 10, nn.BatchNorm2d)
