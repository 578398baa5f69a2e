"""FedDyn (Acar et al. 2021, "Federated Learning Based on Dynamic Regularization"): each client's objective moves with
the federation, so that what clients agree on is an optimum of the whole.

The server's ``h`` is the mean over all clients of the gradients that they keep, and follows from the updates: nothing
travels beside the model. Clients may join at any time (``population``). With P of m clients in a round,

    h <- h - alpha * P / m * mean(update),    model <- model + mean(update) - h / alpha

The second step is 0 / 0 at alpha = 0. There it is left out, and FedDyn is FedAvg with equal weights. That is no limit:
for a small alpha clients train as in FedAvg, but ``-h / alpha`` is P / m times the sum of all mean updates so far, and
comes on top.

Deviation: local training approaches the clients' optimum with the plan's steps. Under central privacy ``h`` follows the
clipped and noised mean, and is no longer quite the mean of what clients keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedpress.compression.layout import part
from fedpress.params import Spec, Tensors, add, zeros
from fedpress.server.strategies.compatibility import POINTS, ROUNDS
from fedpress.server.strategies.fedavg import FedAvg, scaled
from fedpress.server.strategies.population import Population
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share


@dataclass(frozen=True)
class FedDyn(FedAvg):
    """``alpha``: the weight of the dynamic regulariser; ``lr`` scales the mean update in the step."""

    id: ClassVar[str] = "feddyn"
    citation: ClassVar[str] = "Acar et al. 2021"
    needs: ClassVar[frozenset[str]] = frozenset({POINTS, ROUNDS})
    corrects: ClassVar[bool] = True
    told: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: Annotated[float, Field(ge=0, description="weight of the dynamic regulariser")] = 0.1

    def share(self, arrival: Arrival) -> Share:  # noqa: ARG002 - a strategy's signature
        """All alike, as in the paper."""
        return Share(1.0)

    def init(self, spec: Spec) -> Tensors:
        """``h`` = 0."""
        return zeros(spec)

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """See the module's docstring."""
        mean = scaled(self.lr, round_.mean)
        if not self.alpha:
            return add(model, mean), state
        alpha, clients = np.float32(self.alpha), Population.of(round_, state)
        h = {n: clients.stays * a - alpha * (clients.seen * round_.mean[n]) for n, a in part("", state).items()}
        return add(model, {n: a - h[n] / alpha for n, a in mean.items()}), {**h, **clients.state}
