"""The client half of each strategy, one file per published algorithm, and the table of them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fedpress.client.rules.apfl import Apfl
from fedpress.client.rules.ditto import Ditto
from fedpress.client.rules.fedala import FedAla
from fedpress.client.rules.fedavg import FedAvg
from fedpress.client.rules.fedprox import FedProx
from fedpress.client.rules.ifca import Ifca
from fedpress.client.rules.per_fedavg import FirstOrder, HessianFree
from fedpress.client.rules.pfedme import PFedMe
from fedpress.client.rules.rule import Outcome, Rule
from fedpress.client.rules.scaffold import Scaffold
from fedpress.errors import SpecError, closest
from fedpress.protos import fleet_pb2 as pb

__all__ = ["RULES", "Outcome", "Rule", "rule"]

#: How a rule is made from what the ticket says.
RULES: Final[Mapping[str, Callable[[pb.Rule], Rule]]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "ditto": Ditto,
    "pfedme": PFedMe,
    "apfl": Apfl,
    "per-fedavg-fo": FirstOrder,
    "per-fedavg-hf": HessianFree,
    "fedala": FedAla,
    "ifca": Ifca,
}


def rule(said: pb.Rule) -> Rule:
    """The rule a ticket asks for. Raises SpecError where the device does not know it."""
    if said.name not in RULES:
        raise SpecError(f"Expected a rule this device knows, got '{said.name}'. {closest(said.name, RULES)}")
    return RULES[said.name](said)
