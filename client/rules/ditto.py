"""Ditto's client half (Li et al. 2021, algorithm 1): a fit of the shared model, then one of the device's own.

The own model begins as the run's seed draws the shared one, and goes on from where it was; until there is one, the
shared model is used. The shared fit comes first, so that its draws are those of FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.fedprox import proximal
from fedpress.client.rules.rule import Outcome, Use, kept, option, whole
from fedpress.client.trainers.trainer import Terms
from fedpress.compression.layout import grouped
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Ditto:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """Two fits."""
        return Use(), Use(whole(self.said, "personal_epochs"))

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Two fits; the personal one is pulled towards the model that arrived."""
        trained = learner.fit(shared)
        pull = Terms(proximal(option(self.said, "lam"), learner.point(shared)))
        before = kept(own, "ditto", shared) or learner.initial()
        mine = learner.fit(before, pull, whole(self.said, "personal_epochs"))
        return Outcome(trained.tensors, grouped("ditto", mine.tensors), trained.examples, trained.steps, trained.loss)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """The device's own model; before there is one, the shared."""
        return learner.whole(kept(own, "ditto", shared) or shared)
