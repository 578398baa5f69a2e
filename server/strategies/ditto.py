"""Ditto (Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization").

The shared model is FedAvg's. Beside it each device trains one of its own, held near the shared model that it was sent
by ``lam / 2 * |v - w|**2``, and keeps it. With ``lam`` = 0 that is local training, with more of it the shared model
fine-tuned. Two fits a round; under local privacy both are private, and both are paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.server.strategies.compatibility import POINTS
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Ditto(FedAvg):
    """``lam``: the weight of the proximal term; ``personal_epochs``: passes for the personal model."""

    id: ClassVar[str] = "ditto"
    citation: ClassVar[str] = "Li et al. 2021"
    needs: ClassVar[frozenset[str]] = frozenset({POINTS})
    told: ClassVar[tuple[str, ...]] = ("lam", "personal_epochs")

    lam: Annotated[float, Field(ge=0, description="pull of the personal model towards the shared one")] = 0.1
    personal_epochs: Annotated[int, Field(ge=0, description="passes for the personal model; 0: train.epochs")] = 0
