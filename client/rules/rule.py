"""The client half of a strategy: what of a model is shared and what stays; and the table of rules by name.

Corrections of gradients (a proximal term, a control variate) will enter here as a further method, which the trainer
calls with parameters and gradients at each step: arithmetic that works alike on NumPy and torch arrays, so that one
rule serves every trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from fedpress.client.rules.fedavg import FedAvg
from fedpress.client.rules.fedper import FedPer
from fedpress.errors import SpecError, closest
from fedpress.params import Spec, Tensors
from fedpress.protos import fleet_pb2 as pb


class Rule(Protocol):
    """A strategy's client half, made for one ticket and one model."""

    def split(self, model: Tensors) -> tuple[Tensors, Tensors]:
        """The shared tensors and the personal ones of a whole model, each in the model's order."""

    def merge(self, shared: Tensors, personal: Tensors) -> Tensors:
        """The whole model, in its spec's order. Raises SpecError where a tensor is missing."""


#: How a rule is made from what the ticket says and the device's own whole spec.
RULES: Final[Mapping[str, Callable[[pb.Rule, Spec], Rule]]] = {
    "fedavg": lambda _, spec: FedAvg(spec),
    "fedper": lambda said, spec: FedPer(spec, tuple(said.personal)),
}


def rule(said: pb.Rule, spec: Spec) -> Rule:
    """The rule a ticket asks for. Raises SpecError where the device does not know it."""
    if said.name not in RULES:
        raise SpecError(f"Expected a rule this device knows, got '{said.name}'. {closest(said.name, RULES)}")
    return RULES[said.name](said, spec)
