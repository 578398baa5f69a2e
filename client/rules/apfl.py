"""APFL's client half (Deng et al. 2020, algorithm 1): at each step one gradient at ``w`` and one at the mixture.

``v`` begins as the run's seed draws the shared model; until there is one, the shared model is used. The mixture mixes
running statistics like all else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use, kept, option
from fedpress.client.trainers.trainer import Point
from fedpress.compression.layout import grouped
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb

#: Name of the device's own share among what it keeps.
SHARE: Final = "apfl:alpha"


@dataclass(frozen=True)
class Apfl:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """Two gradients on each batch."""
        return (Use(gradients=2),)

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """SGD on both models, and on alpha if it adapts."""
        lr, alpha = learner.training.lr, self._alpha(own)
        common, mine = learner.point(shared), learner.point(kept(own, "local", shared) or learner.initial())
        total, seen, steps = 0.0, 0, 0
        for rows in learner.batches():
            mixture = mixed(alpha, mine, common)
            at_mixture, _ = learner.gradient(mixture, rows)
            gradients, loss = learner.gradient(common, rows)
            slope = sum(float(((mine[n] - common[n]) * g).sum()) for n, g in at_mixture.items())
            for n in mine:
                mine[n] = mine[n] - lr * alpha * at_mixture[n] if n in at_mixture else mixture[n]
            for n, gradient in gradients.items():
                common[n] = common[n] - lr * gradient
            if option(self.said, "adaptive"):
                alpha = min(1.0, max(0.0, alpha - lr * slope))
            total, seen, steps = total + loss * len(rows), seen + len(rows), steps + 1
        stays = {**grouped("local", learner.tensors(mine)), SHARE: np.array(alpha, np.float32)}
        return Outcome(learner.tensors(common), stays, learner.examples, steps, total / max(1, seen))

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """The mixture; before there is a model to mix, the shared one."""
        mine = kept(own, "local", shared)
        return learner.whole(mixed(self._alpha(own), mine, dict(shared)) if mine else shared)

    def _alpha(self, own: Tensors) -> float:
        adapted = SHARE in own and option(self.said, "adaptive")
        return float(own[SHARE]) if adapted else option(self.said, "alpha")


def mixed(alpha: float, mine: Point, common: Point) -> Point:
    """``alpha * mine + (1 - alpha) * common``; either of them to the bit where it is all there is."""
    return {n: alpha * mine[n] + (1.0 - alpha) * common[n] for n in common}
