"""MOON (Li, He and Song 2021, "Model-Contrastive Federated Learning"): FedAvg whose clients' representations are drawn
towards those of the global model and away from those of their own last model. With mu = 0 it is FedAvg.

Deviation: the representation is what the model's last layer is given; the paper adds a projection head before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.server.strategies.compatibility import REPRESENTATIONS
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Moon(FedAvg):
    """``mu`` and ``temperature`` of the contrastive term."""

    id: ClassVar[str] = "moon"
    citation: ClassVar[str] = "Li, He and Song 2021"
    needs: ClassVar[frozenset[str]] = frozenset({REPRESENTATIONS})
    told: ClassVar[tuple[str, ...]] = ("mu", "temperature")

    mu: Annotated[float, Field(ge=0, description="weight of the contrastive term")] = 1.0
    temperature: Annotated[float, Field(ge=0.05, description="of the contrastive term")] = 0.5
