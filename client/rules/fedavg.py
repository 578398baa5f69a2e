"""FedAvg's client half (McMahan et al. 2017), and of every strategy that trains plainly: all tensors, one fit.

With ``personal`` tensors it is FedPer's (Arivazhagan et al. 2019): those are trained with the rest, kept, never sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use
from fedpress.params import Array, Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class FedAvg:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """One fit."""
        return (Use(),)

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Fit, and part what is shared from what stays."""
        trained = learner.fit(joined(self.said, shared, own, learner))
        stays = {n: trained.tensors[n] for n in self.said.personal}
        return Outcome(trained.tensors, stays, trained.examples, trained.steps, trained.loss)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """What arrived, with what stayed here."""
        return joined(self.said, shared, own, learner)


def joined(said: pb.Rule, shared: Tensors, own: Tensors, learner: Learner) -> dict[str, Array]:
    """The whole model: what arrived, and the personal tensors that were kept here, or as the seed draws them."""
    return learner.whole(shared, {n: own[n] for n in said.personal if n in own})
