"""FedAvg's client half (McMahan et al. 2017): every tensor is shared, nothing is corrected."""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.params import Spec, Tensors, ordered


@dataclass(frozen=True)
class FedAvg:
    """See ``fedpress.client.rules.rule.Rule``."""

    spec: Spec

    def split(self, model: Tensors) -> tuple[Tensors, Tensors]:
        """All of it, and nothing."""
        return model, {}

    def merge(self, shared: Tensors, personal: Tensors) -> Tensors:  # noqa: ARG002 - a rule's signature
        """The shared tensors are the model; what another run may have left behind as personal is not used."""
        return ordered(shared, self.spec)
