"""Fine-tuning before the model is measured (Wang et al. 2019): else it is FedAvg's client half."""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.fedavg import FedAvg, joined
from fedpress.client.rules.rule import Use, whole
from fedpress.params import Tensors


@dataclass(frozen=True)
class FineTune(FedAvg):
    """See ``fedpress.client.rules.rule.Rule``."""

    def uses(self) -> tuple[Use, ...]:
        """One fit to train, one to measure."""
        return Use(), Use(whole(self.said, "fine_tune_epochs"), evaluating=True)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """What arrived, trained on this device's data. Nothing of it is kept."""
        return learner.fit(joined(self.said, shared, own, learner), epochs=whole(self.said, "fine_tune_epochs")).tensors
