"""FedPer (Arivazhagan et al. 2019, "Federated Learning with Personalization Layers").

The tensors that match the plan's ``personal`` patterns stay on each device: they are trained there with the others,
survive its restart, and never travel. The rest is averaged as in FedAvg. The paper's personal layers are the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.compression.layout import Layout, plain
from fedpress.errors import PlanError
from fedpress.params import Spec
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedPer(FedAvg):
    """``personal``: shell patterns over tensor names, such as ``head.*``."""

    id: ClassVar[str] = "fedper"
    citation: ClassVar[str] = "Arivazhagan et al. 2019"

    personal: Annotated[
        tuple[str, ...], Field(description="patterns of tensors that stay on the device, like head.*")
    ] = ()

    def __post_init__(self) -> None:
        if not self.personal:
            raise PlanError("Expected at least one pattern of personal tensors, got none (strategy.personal).")

    def layout(self, full: Spec) -> Layout:
        """What matches no pattern. Raises SpecError if a pattern matches none, PlanError if all match."""
        return shared(full, full.matching(self.personal))


def shared(full: Spec, personal: tuple[str, ...]) -> Layout:
    """The tensors of the model less the personal ones. Raises PlanError where none is left."""
    rest = [n for n in full.names if n not in set(personal)]
    if not rest:
        raise PlanError(
            f"Expected a tensor that is shared, got patterns that match all {len(full)} (strategy.personal). "
            "Training without sharing is strategy.name = 'local'."
        )
    return plain(rest)
