"""Per-FedAvg's client half (Fallah et al. 2020, algorithm 1), first-order and Hessian-free.

Each step takes batches D, D' and D'' of three separate shuffles. D' is drawn first, as FedAvg draws its batches:

    ahead = w - inner * gradient(w; D)
    g = gradient(ahead; D')
    w = w - lr * (g - inner * H(w; D'') g)

with ``H g`` nearly ``(gradient(w + delta g; D'') - gradient(w - delta g; D'')) / (2 delta)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use, option
from fedpress.client.trainers.trainer import Point
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class FirstOrder:
    """See ``fedpress.client.rules.rule.Rule``. The term with the Hessian is dropped."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """D and D', and a batch before the model is measured."""
        return Use(), Use(), Use(1, batches=1, evaluating=True)

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:  # noqa: ARG002 - a rule's signature
        """Steps on what the model would be after one step of its own."""
        point, inner, lr = learner.point(shared), option(self.said, "inner"), learner.training.lr
        total, seen, steps = 0.0, 0, 0
        draws = [list(learner.batches()) for _ in range(3)]
        for rows, before, after in zip(*draws, strict=True):
            ahead = moved(point, -inner, learner.gradient(point, before)[0])
            gradients, loss = learner.gradient(ahead, rows)
            point = moved(point, -lr, self.whole(gradients, point, after, learner))
            total, seen, steps = total + loss * len(rows), seen + len(rows), steps + 1
        return Outcome(learner.tensors(point), {}, learner.examples, steps, total / max(1, seen))

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:  # noqa: ARG002
        """The model that arrived, after one step on a batch of the device's own examples."""
        point = learner.point(shared)
        for rows in islice(learner.batches(1), 1):
            point = moved(point, -option(self.said, "inner"), learner.gradient(point, rows)[0])
        return learner.whole(learner.tensors(point))

    def whole(self, gradients: Point, point: Point, rows: NDArray[np.int64], learner: Learner) -> Point:  # noqa: ARG002
        """The gradient of the objective, of that at the point ahead."""
        return gradients


@dataclass(frozen=True)
class HessianFree(FirstOrder):
    """With the product of Hessian and gradient, from a difference of two gradients."""

    def uses(self) -> tuple[Use, ...]:
        """And D'', twice."""
        return *super().uses(), Use(gradients=2)

    def whole(self, gradients: Point, point: Point, rows: NDArray[np.int64], learner: Learner) -> Point:
        """See the module's docstring."""
        delta, inner = option(self.said, "delta"), option(self.said, "inner")
        above, _ = learner.gradient(moved(point, delta, gradients), rows)
        below, _ = learner.gradient(moved(point, -delta, gradients), rows)
        return {n: g - inner * ((above[n] - below[n]) / (2.0 * delta)) for n, g in gradients.items()}


def moved(point: Point, by: float, direction: Point) -> Point:
    """``point + by * direction``; what has no direction, such as running statistics, is the same array."""
    return {n: a + by * direction[n] if n in direction else a for n, a in point.items()}
