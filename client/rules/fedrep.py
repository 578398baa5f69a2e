"""FedRep's client half (Collins et al. 2021, algorithm 1): the head on the body that arrived, then the body under it.

What is frozen does not move at all: neither its parameters nor, of the body while the head is trained, its buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.fedavg import FedAvg, joined
from fedpress.client.rules.rule import Outcome, Use, whole
from fedpress.client.trainers.trainer import Terms
from fedpress.params import Tensors


@dataclass(frozen=True)
class FedRep(FedAvg):
    """See ``fedpress.client.rules.rule.Rule``. ``said.personal`` is the head; its model is FedPer's."""

    def uses(self) -> tuple[Use, ...]:
        """Two fits."""
        return Use(whole(self.said, "head_epochs")), Use()

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Two fits. Loss and steps are the body's."""
        begun = joined(self.said, shared, own, learner)
        fitted = learner.fit(begun, Terms(only=self.said.personal), whole(self.said, "head_epochs"))
        head = {n: fitted.tensors[n] for n in self.said.personal}
        trained = learner.fit({**begun, **head}, Terms(only=list(shared)))
        return Outcome(trained.tensors, head, trained.examples, trained.steps, trained.loss)
