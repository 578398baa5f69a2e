"""Local fine-tuning of FedAvg's model: the baseline of personalisation (Wang et al. 2019, "Federated Evaluation of
On-device Personalization"; "FedAvg + fine-tuning" in most papers since).

The federation is FedAvg, to the bit. Before a device measures the model, it trains it on its own data for
``fine_tune_epochs``; the result is what this device would use, is measured, and forgotten. The server's accuracy stays
that of the global model.

Under local privacy fine-tuning spends as all training does: the metrics that leave the device depend on it.

Deviation: fine-tuning takes the learning rate of the round that the device is asked in, and in the final evaluation,
where a schedule may have ended at 0, ``train.lr``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field

from fedpress.server.strategies.fedavg import FedAvg

Epochs: TypeAlias = Annotated[
    int, Field(ge=1, le=1000, description="passes over the local data before the model is measured")
]


@dataclass(frozen=True)
class FineTune(FedAvg):
    """``fine_tune_epochs``: passes that make the personal model."""

    id: ClassVar[str] = "finetune"
    citation: ClassVar[str] = "Wang et al. 2019"
    told: ClassVar[tuple[str, ...]] = ("fine_tune_epochs",)

    fine_tune_epochs: Epochs = 5
