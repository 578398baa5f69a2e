"""Clothes, 28x28, 10 classes (Xiao, Rasul and Vollgraf 2017): MNIST's layout and size, harder.

60 000 to learn from, 10 000 for the test; no natural partition.
"""

from __future__ import annotations

from pathlib import Path

from fedpress.simulations.data import ensure
from fedpress.simulations.tasks import idx
from fedpress.simulations.tasks.mnist import model, student
from fedpress.task import Data

__all__ = ["data", "model", "student"]


def data(directory: Path) -> Data:
    """x float32[n, 1, 28, 28] in [0, 1], y int64[n] in 0..9. Raises DataError."""
    return idx.images(ensure("fashion-mnist", directory))
