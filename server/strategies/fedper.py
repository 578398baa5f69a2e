"""FedPer (Arivazhagan et al. 2019, "Federated Learning with Personalization Layers").

The tensors that match the plan's ``personal`` patterns stay on each device: they are trained there, survive its
restart, and never travel. The rest is averaged as in FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.errors import PlanError
from fedpress.params import Spec
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedPer(FedAvg):
    """``patterns``: shell patterns over tensor names, such as ``head.*``."""

    id: ClassVar[str] = "fedper"
    citation: ClassVar[str] = "Arivazhagan et al. 2019"
    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.patterns:
            raise PlanError("Expected at least one pattern of personal tensors, got none (strategy.personal).")

    def personal(self, spec: Spec) -> tuple[str, ...]:
        """The tensors that match a pattern. Raises SpecError if a pattern matches none, PlanError if all match."""
        found = spec.matching(self.patterns)
        if len(found) == len(spec):
            raise PlanError(
                f"Expected a tensor that is shared, got patterns that match all {len(spec)} (strategy.personal)."
            )
        return found
