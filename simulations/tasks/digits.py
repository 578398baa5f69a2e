"""Handwritten digits, 8x8, as bundled with scikit-learn: the default task, no file, no network.

1797 images of UCI's Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998). Every fifth of each digit is
for the test. The bundled rows carry no writer, so there is no natural partition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedpress.errors import MissingExtra
from fedpress.simulations.tasks.splits import spread
from fedpress.task import Data, Split


def data(directory: Path) -> Data:  # noqa: ARG001 - bundled, so no directory
    """x float32[n, 64] in [0, 1], y int64[n] in 0..9; 1442 and 355 examples. Raises MissingExtra."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtra("The task 'digits'", "tasks") from error
    bunch = load_digits()
    everything = Split((bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64))
    test = spread(everything.y, 0.2)
    return Data(everything.take(~test), everything.take(test))


def model() -> Any:
    """64-256-128-10 with ReLU: 50 826 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(64, 256, 128, 10)


def student() -> Any:
    """64-32-10: 2 410 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(64, 32, 10)
