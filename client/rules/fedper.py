"""FedPer's client half (Arivazhagan et al. 2019): base layers are shared, the personal head never leaves the device.

As in the paper, base and head are trained together in every round.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.params import Spec, Tensors, ordered


@dataclass(frozen=True)
class FedPer:
    """See ``fedpress.client.rules.rule.Rule``. ``personal``: names of the head's tensors."""

    spec: Spec
    personal: tuple[str, ...]

    def split(self, model: Tensors) -> tuple[Tensors, Tensors]:
        """Base and head."""
        head = set(self.personal)
        return {n: a for n, a in model.items() if n not in head}, {n: model[n] for n in self.personal}

    def merge(self, shared: Tensors, personal: Tensors) -> Tensors:
        """Base and head in the model's order."""
        return ordered({**shared, **{n: personal[n] for n in self.personal if n in personal}}, self.spec)
