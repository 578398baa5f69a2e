"""FedALA (Zhang et al. 2023, "FedALA: Adaptive Local Aggregation for Personalized Federated Learning").

Before it trains, a device mixes the top ``layers`` of the model that arrived with those of its own last one, element by
element, by weights in [0, 1] that it learns on a ``sample`` of its data. Lower layers are taken as they arrive. The
server is FedAvg's. With weights of 1 (``rate`` = 0) so are the devices.

Layers are counted from the last module of the model, in the order of its spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.server.strategies.compatibility import GRADIENTS, LOSSES
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedAla(FedAvg):
    """Defaults are the paper's."""

    id: ClassVar[str] = "fedala"
    citation: ClassVar[str] = "Zhang et al. 2023"
    needs: ClassVar[frozenset[str]] = frozenset({GRADIENTS, LOSSES})
    told: ClassVar[tuple[str, ...]] = ("layers", "sample", "rate")

    layers: Annotated[int, Field(ge=1, description="top layers that are mixed element by element")] = 1
    sample: Annotated[float, Field(gt=0, le=1, description="share of the local data that weights are learned on")] = 0.8
    rate: Annotated[float, Field(ge=0, description="learning rate of the weights; 0: the shared model is taken")] = 1.0
