"""The same activities and people as ``har``, from the raw signal: 9 channels, 128 samples at 50 Hz.

Channels: body acceleration xyz, angular velocity xyz, total acceleration xyz (g and rad/s, stored as float16).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedpress.simulations.data import ensure
from fedpress.simulations.tasks.har import by_person
from fedpress.task import Data


def data(directory: Path) -> Data:
    """x float32[n, 9, 128], channels before time, y int64[n] in 0..5, owner: the person. Raises DataError."""
    with np.load(ensure("har-inertial", directory) / "uci_har_inertial.npz") as file:
        signal = np.ascontiguousarray(file["X"].transpose(0, 2, 1), dtype=np.float32)
        return by_person(signal, file["y"], file["subject"])


def model() -> Any:
    """Three strided convolutions over time, the mean over time, a linear layer: 54 k parameters."""
    from fedpress.simulations.tasks.networks import signal_cnn

    return signal_cnn(channels=(9, 32, 64, 128), classes=6)


def student() -> Any:
    """The same, thinner: 7 k parameters."""
    from fedpress.simulations.tasks.networks import signal_cnn

    return signal_cnn(channels=(9, 16, 24, 32), classes=6)
