"""FedBABU's client half (Oh et al. 2022): a body is trained under a head that nobody trains; fine-tuned to be used."""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.finetune import FineTune
from fedpress.client.rules.rule import Outcome
from fedpress.client.trainers.trainer import Terms
from fedpress.params import Tensors


@dataclass(frozen=True)
class FedBABU(FineTune):
    """See ``fedpress.client.rules.rule.Rule``. ``said.personal`` is the head."""

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:  # noqa: ARG002 - a rule's signature
        """Fit the body; the head is as the seed draws it, so that there is nothing to keep."""
        trained = learner.fit(learner.whole(shared), Terms(only=list(shared)))
        return Outcome(trained.tensors, {}, trained.examples, trained.steps, trained.loss)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:  # noqa: ARG002
        """What arrived under the seed's head, all of it fine-tuned."""
        return super().personal(shared, {}, learner)
