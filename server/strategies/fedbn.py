"""FedBN (Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization").

Normalisation layers stay on each device, scale, shift and running statistics alike; the rest is averaged. A layer of
batch normalisation shows in the spec by its ``running_mean``. Layers without statistics (GroupNorm, LayerNorm) do not:
``personal`` names those by pattern, which goes beyond the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import Field

from fedpress.compression.layout import Layout
from fedpress.errors import PlanError
from fedpress.params import Spec
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.fedper import shared

_MARK: Final = "running_mean"
_OF_A_LAYER: Final = (_MARK, "running_var", "weight", "bias")


@dataclass(frozen=True)
class FedBN(FedAvg):
    """``personal``: patterns of further normalisation layers, beside those that have running statistics."""

    id: ClassVar[str] = "fedbn"
    citation: ClassVar[str] = "Li et al. 2021"

    personal: Annotated[
        tuple[str, ...], Field(description="patterns of GroupNorm and LayerNorm; BatchNorm is found without")
    ] = ()

    def layout(self, full: Spec) -> Layout:
        """What is not of a normalisation layer. Raises PlanError where none is found, SpecError for a pattern that
        matches nothing."""
        personal = normalisations(full) + full.matching(self.personal)
        if not personal:
            raise PlanError(
                "Expected a layer with running statistics in the model, or patterns of GroupNorm and LayerNorm layers "
                f"(strategy.personal). The model's tensors: {', '.join(full.names)}."
            )
        return shared(full, personal)


def normalisations(full: Spec) -> tuple[str, ...]:
    """The tensors of all layers that keep running statistics."""
    layers = {n.removesuffix(_MARK) for n in full.names if n == _MARK or n.endswith(f".{_MARK}")}
    return tuple(n for n in full.names if any(n == layer + part for layer in layers for part in _OF_A_LAYER))
