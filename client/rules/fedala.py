"""FedALA's client half (Zhang et al. 2023, algorithm 1): learn how much of the shared model to take, mix, fit.

The weights begin at 1 and stay on the device, as do the top layers of its last model. The first time they are learned
until the loss stands still (as in the authors' code: a deviation below 0.1 over 10 passes), then by one pass a round.
Deviation: that first time ends after 100 passes at the latest, and the sample is of whole batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from statistics import pstdev
from typing import Any, Final

import numpy as np

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use, kept, option, whole
from fedpress.client.trainers.trainer import Point
from fedpress.compression.layout import grouped
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb

_PASSES: Final = 100
_WINDOW: Final = 10
_STILL: Final = 0.1


@dataclass(frozen=True)
class FedAla:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """Losses, which nothing hides."""
        return ()

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Fit, from the mixture."""
        model, weights = self._mixture(shared, own, learner)
        trained = learner.fit(model)
        last = {n: trained.tensors[n] for n in self._top(shared)}
        stays = {**grouped("local", last), **grouped("weights", weights)}
        return Outcome(trained.tensors, stays, trained.examples, trained.steps, trained.loss)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """The mixture."""
        return learner.whole(self._mixture(shared, own, learner)[0])

    def _mixture(self, shared: Tensors, own: Tensors, learner: Learner) -> tuple[Tensors, Tensors]:
        """The model to begin from, and the weights; none before there is a model to mix with."""
        top = {n: shared[n] for n in self._top(shared)}
        before = kept(own, "local", top)
        if not before:
            return shared, {}
        known = kept(own, "weights", top)
        weights = learner.point(known or {n: np.ones_like(a) for n, a in top.items()})
        arrived, mine = learner.point(shared), learner.point(before)
        self._learn(weights, arrived, mine, learner, 1 if known else _PASSES)
        found = learner.tensors(weights)
        return {**shared, **mixed(found, top, before)}, found

    def _learn(self, weights: Point, arrived: Point, mine: Point, learner: Learner, passes: int) -> None:
        """Descend on ``weights``, in place: the derivative of the mixture by a weight is ``arrived - mine``."""
        rows, rate = list(learner.batches(1)), option(self.said, "rate")
        rows = rows[: ceil(option(self.said, "sample") * len(rows))]
        losses: list[float] = []
        for _ in range(passes):
            for batch in rows:
                gradients, loss = learner.gradient({**arrived, **mixed(weights, arrived, mine)}, batch)
                for n in weights.keys() & gradients.keys():
                    weights[n] = (weights[n] - rate * gradients[n] * (arrived[n] - mine[n])).clip(0, 1)
            losses += [loss] if rows else []
            if len(losses) >= _WINDOW and pstdev(losses[-_WINDOW:]) < _STILL:
                return

    def _top(self, names: Iterable[str]) -> list[str]:
        """Names of the tensors in the last modules."""
        names = list(names)
        modules = list(dict.fromkeys(n.rpartition(".")[0] for n in names))
        top = set(modules[-whole(self.said, "layers") :])
        return [n for n in names if n.rpartition(".")[0] in top]


def mixed(weights: Mapping[str, Any], arrived: Mapping[str, Any], mine: Mapping[str, Any]) -> Point:
    """``mine + weights * (arrived - mine)``, so that a weight of 0 or 1 gives one of them to the bit."""
    return {n: w * arrived[n] + (1.0 - w) * mine[n] for n, w in weights.items()}
