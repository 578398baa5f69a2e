"""What sparsifiers share: k of n parameters survive, over the whole update as one vector, and go on as a tensor
``values``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Wire
from fedpress.compression.stage import Stage
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, TensorSpec, flatten, unflatten

VALUES = "values"
#: ``nearly_largest``: bins, and the bits of a float32 below those that name its bin.
_BINS, _BELOW = 1 << 15, 16


@dataclass(frozen=True)
class Sparse(Stage):
    """Base of codecs that keep ``k = max(1, ceil(density * n))`` of ``n`` parameters."""

    density: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise CodecError(f"Expected 0 < density <= 1, got {self.density} ({self.id}.density).")

    def kept(self, size: int) -> int:
        """k, from the number of parameters alone; 0 only of 0."""
        return min(size, max(1, math.ceil(self.density * size)))

    def share(self, size: int) -> float:
        """k / n; 1 for an empty model."""
        return self.kept(size) / size if size else 1.0

    def rest(self, spec: Spec) -> Spec:
        """One tensor, ``values``, of shape (k,)."""
        return Spec((TensorSpec(VALUES, (self.kept(spec.size),)),))


def largest(vector: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the ``k`` largest magnitudes, increasing. Of equal magnitudes the lower index wins, everywhere."""
    if k == vector.size:
        return np.arange(k)
    magnitude = np.abs(vector)
    threshold = np.partition(magnitude, vector.size - k)[vector.size - k]
    chosen = magnitude > threshold
    ties = np.flatnonzero(magnitude == threshold)
    chosen[ties[: k - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def nearly_largest(vector: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of ``k`` of the largest magnitudes, increasing: no other is larger by more than a share of 1/128.

    One pass counts the top 15 bits of all magnitudes (exponent, 7 of the mantissa); of those that fall where the count
    reaches ``k`` the lower indices are taken.
    """
    bins = np.ascontiguousarray(vector).view(np.uint32) >> np.uint32(_BELOW) & np.uint32(_BINS - 1)
    at_least = np.cumsum(np.bincount(bins, minlength=_BINS)[::-1])[::-1]
    boundary = np.count_nonzero(at_least >= k) - 1
    chosen = bins > boundary
    ties = np.flatnonzero(bins == boundary)
    chosen[ties[: k - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def largest_values(tensors: Tensors, k: int) -> NDArray[np.float32]:
    """The ``k`` values of largest magnitude, in the order of their indices."""
    vector = flatten(tensors)
    return vector[largest(vector, k)]


def scatter(indices: NDArray[np.int64], wire: Wire, spec: Spec) -> Tensors:
    """Zeros of ``spec`` with ``wire.rest`` at ``indices``."""
    vector = np.zeros(spec.size, np.float32)
    vector[indices] = wire.rest[VALUES]
    return unflatten(vector, spec)


def squared_norm(tensors: Tensors) -> float:
    """Sum of squares, in double precision."""
    return float(sum(np.sum(np.square(a, dtype=np.float64)) for a in tensors.values()))
