"""The running weighted sum of a round's updates: memory O(model), whatever the number of clients.

Sums are kept in float64, so that the order of arrival does not show in the float32 mean (an update's share is rounded
at 2**-53 of its size, the mean at 2**-24). Folding and dividing go in blocks, so that no second float64 copy of a
tensor is ever made.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from fedpress.compression.layout import group
from fedpress.compression.native import kernels
from fedpress.errors import SpecError
from fedpress.params import Array, Spec, Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.strategies.strategy import Aggregate, Share

_BLOCK: Final = 1 << 16


class WeightedSum:
    """``sum(w_i * x_i)``, and by group of tensors the ``sum(w_i)`` to divide by. Reused from round to round: ``clear``
    starts over without allocating."""

    def __init__(self, spec: Spec) -> None:
        self._sums = {t.name: np.zeros(t.size, np.float64) for t in spec}
        self._weights = dict.fromkeys((group(n) for n in self._sums), 0.0)
        self._spec = spec
        self._scratch = np.empty(_BLOCK, np.float64)
        self.weight = 0.0
        """Of all that was folded."""

    def clear(self) -> None:
        """Back to the empty sum."""
        for total in self._sums.values():
            total.fill(0.0)
        self._weights = dict.fromkeys(self._weights, 0.0)
        self.weight = 0.0

    def fold(self, update: Tensors, weight: float, scale: float = 1.0, groups: Collection[str] | None = None) -> None:
        """Add ``weight * scale * update``, of weight ``weight``, in these ``groups`` (None: in all). Raises SpecError
        for a weight that is not positive and finite."""
        if not (0.0 < weight < float("inf") and abs(scale) < float("inf")):
            raise SpecError(f"Expected an update's weight > 0 and a finite scale, got {weight} and {scale}.")
        counted = self._weights.keys() if groups is None else self._weights.keys() & set(groups)
        for name, total in self._sums.items():
            if group(name) in counted:
                kernels.fold(total, np.ravel(update[name]), weight * scale)
        for label in counted:
            self._weights[label] += weight
        self.weight += weight

    def weight_in(self, groups: Collection[str] | None) -> float:
        """The weight of what was folded into these ``groups`` (None: into all), the least of theirs."""
        found = [weight for label, weight in self._weights.items() if groups is None or label in groups]
        return min(found, default=self.weight)

    def mean(self) -> dict[str, Array]:
        """The weighted mean as float32, 0 in a group that nothing was folded into. Raises SpecError if nothing was
        folded at all."""
        if self.weight <= 0.0:
            raise SpecError("Expected at least one update before taking the mean, got none.")
        return {t.name: self._divided(self._sums[t.name], group(t.name)).reshape(t.shape) for t in self._spec}

    def _divided(self, total: Array, label: str) -> Array:
        """``total`` over the weight of a group, divided in float64, as float32."""
        weight = self._weights[label] or 1.0
        mean = np.empty(total.size, np.float32)
        for at in range(0, total.size, _BLOCK):
            block = total[at : at + _BLOCK]
            mean[at : at + block.size] = np.divide(block, weight, out=self._scratch[: block.size])
        return mean


class Gathering:
    """What a round's updates come to: their weighted mean, that of their facts, and how many they are."""

    def __init__(self, spec: Spec) -> None:
        self._sum = WeightedSum(spec)
        self._facts: dict[str, float] = {}
        self._counted = 0
        self._lost: dict[tuple[str, ...] | None, float] = {}  # by the groups that updates count in

    def clear(self) -> None:
        """For the next round."""
        self._sum.clear()
        self._facts, self._counted, self._lost = {}, 0, {}

    def fold(self, update: Tensors, share: Share, lost: float = 0.0) -> None:
        """Take in an update for what it counts; its codec ``lost`` that energy. Raises SpecError for a weight that is
        not positive and finite."""
        self._sum.fold(update, share.weight, share.scale, share.groups)
        self._counted += 1
        groups = None if share.groups is None else tuple(share.groups)
        self._lost[groups] = self._lost.get(groups, 0.0) + (share.weight * share.scale) ** 2 * lost
        for name, value in share.facts.items():
            self._facts[name] = self._facts.get(name, 0.0) + share.weight * value

    def measure(self, report: pb.Report) -> None:
        """Metrics are read from the store, where the round is recorded."""

    def aggregate(self, population: int) -> Aggregate:
        """Of ``population`` enrolled clients. Raises SpecError if nothing was folded."""
        facts = {name: total / self._sum.weight for name, total in self._facts.items()}
        lost = sum(energy / self._sum.weight_in(groups) ** 2 for groups, energy in self._lost.items())
        return Aggregate(self._sum.mean(), self._counted, population, facts, lost)
