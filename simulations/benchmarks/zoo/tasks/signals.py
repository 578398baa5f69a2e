"""Signals of a phone on the waist: a third of the windows of har to learn from, half of those for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedpress.simulations.tasks import har, har_inertial
from fedpress.task import Data, Split


def features(directory: Path) -> Data:
    """x float32[n, 561] standardised, y int64[n] in 0..5, owner: the person. Raises DataError."""
    return _thinned(har.data(directory))


def inertial(directory: Path) -> Data:
    """x float32[n, 9, 128] as recorded, y int64[n] in 0..5, owner: the person. Raises DataError."""
    return _thinned(har_inertial.data(directory))


def _thinned(whole: Data) -> Data:
    def thinned(split: Split, by: int) -> Split:
        return split.take(np.arange(0, len(split), by))

    return Data(thinned(whole.train, 3), thinned(whole.test, 2), whole.owners)
