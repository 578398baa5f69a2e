"""FedAvgM (Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification"): FedAvg with heavy-ball momentum on the server, ``v <- beta * v + mean(update)``, ``model + lr * v``.

With beta = 0 it is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedpress.params import Spec, Tensors, add, zeros
from fedpress.server.strategies.fedavg import FedAvg, scaled
from fedpress.server.strategies.strategy import Aggregate


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """``beta``: momentum."""

    id: ClassVar[str] = "fedavgm"
    citation: ClassVar[str] = "Hsu, Qi and Brown 2019"

    beta: Annotated[float, Field(ge=0, lt=1, description="the server's momentum")] = 0.9

    def init(self, spec: Spec) -> Tensors:
        """``v`` = 0."""
        return zeros(spec)

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """See the module's docstring."""
        velocity = {n: np.float32(self.beta) * v + round_.mean[n] for n, v in state.items()}
        return add(model, scaled(self.lr, velocity)), velocity
