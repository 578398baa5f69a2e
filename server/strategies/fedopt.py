"""FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2): the mean update
is taken for a gradient, and the server steps by it with an adaptive optimiser.

    m <- beta1 * m + (1 - beta1) * mean        model <- model + lr * m / (sqrt(v) + tau)

``v`` begins at ``tau**2`` and differs: Adagrad adds the square of the mean; Adam moves towards it by a share
``1 - beta2``; Yogi by that share of the square itself, up or down. As in the paper there is no bias correction. Each
parameter moves by about ``lr`` whatever the updates' length, so that ``lr`` is a thing of its own here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedpress.compression.layout import grouped, part
from fedpress.params import Array, Spec, Tensors, add, zeros
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.strategy import Aggregate


@dataclass(frozen=True)
class FedAdagrad(FedAvg):
    """``lr``: the paper's eta; ``beta1``: 0 in its experiments."""

    id: ClassVar[str] = "fedadagrad"
    citation: ClassVar[str] = "Reddi et al. 2021"
    server_lr: ClassVar[float] = 0.03

    beta1: Annotated[float, Field(ge=0, lt=1, description="decay of the mean update")] = 0.0
    tau: Annotated[float, Field(gt=0, description="degree of adaptivity: large is like momentum")] = 1e-3

    def init(self, spec: Spec) -> Tensors:
        """``m`` = 0 and ``v`` = ``tau**2``."""
        second = {t.name: np.full(t.shape, self.tau**2, np.float32) for t in spec}
        return {**grouped("m", zeros(spec)), **grouped("v", second)}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """See the module's docstring."""
        keep, take, mean = np.float32(self.beta1), np.float32(1.0 - self.beta1), round_.mean
        first = {n: keep * m + take * mean[n] for n, m in part("m", state).items()}
        second = {n: self.second(v, mean[n] * mean[n]) for n, v in part("v", state).items()}
        lr, tau = np.float32(self.lr), np.float32(self.tau)
        change = {n: lr * m / (np.sqrt(second[n]) + tau) for n, m in first.items()}
        return add(model, change), {**grouped("m", first), **grouped("v", second)}

    def second(self, v: Array, square: Array) -> Array:
        """The next ``v``."""
        return v + square


@dataclass(frozen=True)
class FedAdam(FedAdagrad):
    """``lr``: the paper's eta."""

    id: ClassVar[str] = "fedadam"
    server_lr: ClassVar[float] = 0.01

    beta1: Annotated[float, Field(ge=0, lt=1, description="decay of the mean update")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="decay of its square")] = 0.99

    def second(self, v: Array, square: Array) -> Array:
        """Towards the square."""
        return np.float32(self.beta2) * v + np.float32(1.0 - self.beta2) * square


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """``lr``: the paper's eta."""

    id: ClassVar[str] = "fedyogi"

    def second(self, v: Array, square: Array) -> Array:
        """Towards the square, by a share of the square itself: ``v`` grows as fast as Adam's, and shrinks slower."""
        moved: Array = v - np.float32(1.0 - self.beta2) * square * np.sign(v - square)
        return moved
