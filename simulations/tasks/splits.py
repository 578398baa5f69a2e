"""How the built-in tasks set examples aside for the test. Nothing is drawn: the same rows everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpress.params import Array


def spread(groups: Array, share: float) -> NDArray[np.bool_]:
    """A mask that takes ``share`` of every group, evenly spaced in the order given. bool[n]."""
    taken = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        whole = np.floor(np.arange(len(members) + 1) * share + 1e-9)
        taken[members] = np.diff(whole) > 0
    return taken


def last(groups: Array, share: float, gap: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks ``(train, test)`` for recordings: the last ``share`` of every group in the order given is for the test, and
    the ``gap`` examples before it, which may overlap it, are in neither. bool[n] each.
    """
    train, test = np.zeros(len(groups), bool), np.zeros(len(groups), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        cut = len(members) - round(share * len(members))
        train[members[: cut - gap]] = True
        test[members[cut:]] = True
    return train, test
