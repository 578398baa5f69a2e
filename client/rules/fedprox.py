"""FedProx's client half (Li et al. 2020): the local objective gains ``mu / 2 * |w - w_global|**2``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpress.client.learner import Learner
from fedpress.client.rules.fedavg import FedAvg
from fedpress.client.rules.rule import Outcome, option
from fedpress.client.trainers.trainer import Nudge, Point, Terms
from fedpress.params import Tensors


class FedProx(FedAvg):
    """See ``fedpress.client.rules.rule.Rule``."""

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:  # noqa: ARG002 - a rule's signature
        """Fit, each step pulled towards the model that arrived."""
        trained = learner.fit(shared, Terms(proximal(option(self.said, "mu"), learner.point(shared))))
        return Outcome(trained.tensors, {}, trained.examples, trained.steps, trained.loss)


def proximal(mu: float, anchor: Point) -> Nudge:
    """The gradient of ``mu / 2 * |w - anchor|**2``."""

    def nudge(at: Mapping[str, Any], gradients: Point) -> None:
        for name in gradients:
            gradients[name] += mu * (at[name] - anchor[name])

    return nudge
