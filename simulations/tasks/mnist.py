"""Handwritten digits, 28x28 (LeCun, Cortes and Burges 1998): 60 000 to learn from, 10 000 for the test.

MNIST names no writers, so there is no natural partition; see ``femnist`` for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.data import ensure
from fedpress.simulations.tasks import idx
from fedpress.task import Data


def data(directory: Path) -> Data:
    """x float32[n, 1, 28, 28] in [0, 1] with ink = 1, y int64[n] in 0..9. Raises DataError."""
    return idx.images(ensure("mnist", directory))


def model() -> Any:
    """Two convolutions and two linear layers: 106 k parameters."""
    from fedpress.simulations.tasks.networks import cnn

    return cnn(channels=(16, 32), hidden=64, classes=10)


def student() -> Any:
    """The same, thinner: 14 k parameters."""
    from fedpress.simulations.tasks.networks import cnn

    return cnn(channels=(8, 16), hidden=16, classes=10)
