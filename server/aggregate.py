"""The running weighted sum of a round's updates: memory O(model), whatever the number of clients.

Sums are kept in float64, so that the order of arrival does not show in the float32 mean (an update's share is rounded
at 2**-53 of its size, the mean at 2**-24). Folding and dividing go in blocks, so that no second float64 copy of a
tensor is ever made.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fedpress.compression.native import kernels
from fedpress.errors import SpecError
from fedpress.params import Array, Spec, Tensors

_BLOCK: Final = 1 << 16


class WeightedSum:
    """``sum(w_i * x_i)``, and the ``sum(w_i)`` to divide by. Reused from round to round: ``clear`` starts over without
    allocating."""

    def __init__(self, spec: Spec) -> None:
        self._sums = {t.name: np.zeros(t.size, np.float64) for t in spec}
        self._spec = spec
        self._scratch = np.empty(_BLOCK, np.float64)
        self.weight = 0.0

    def clear(self) -> None:
        """Back to the empty sum."""
        for total in self._sums.values():
            total.fill(0.0)
        self.weight = 0.0

    def fold(self, update: Tensors, weight: float, of: float | None = None) -> None:
        """Add ``weight * update``. The mean divides by the sum of ``of``, what updates would weigh undiscounted: what a
        discount takes from one is not given to the others, and one alone is shortened too (FedBuff divides by K).

        Raises SpecError for weights that are not positive and finite.
        """
        of = weight if of is None else of
        if not (0.0 < weight < float("inf") and 0.0 < of < float("inf")):
            raise SpecError(f"Expected an update's weight > 0, got {weight} of {of}.")
        for name, total in self._sums.items():
            kernels.fold(total, np.ravel(update[name]), weight)
        self.weight += of

    def mean(self) -> dict[str, Array]:
        """The weighted mean as float32. Raises SpecError if nothing was folded."""
        if self.weight <= 0.0:
            raise SpecError("Expected at least one update before taking the mean, got none.")
        return {t.name: self._divided(self._sums[t.name]).reshape(t.shape) for t in self._spec}

    def _divided(self, total: Array) -> Array:
        """``total / weight``, divided in float64, as float32."""
        mean = np.empty(total.size, np.float32)
        for at in range(0, total.size, _BLOCK):
            block = total[at : at + _BLOCK]
            mean[at : at + block.size] = np.divide(block, self.weight, out=self._scratch[: block.size])
        return mean
