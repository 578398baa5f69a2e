"""FedNova (Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization"):
clients that take more steps do not pull the model further towards their own optimum.

An update of K steps of SGD is a sum of gradients with weights ``a``; divided by ``|a|_1`` it is a mean gradient, of the
same length whatever K is. The server takes the mean of those times ``tau_eff``, the mean of the ``|a|_1``. Without
momentum ``|a|_1`` is K. With heavy-ball momentum rho it is ``(K - rho (1 - rho**K) / (1 - rho)) / (1 - rho)``: the
gradient of step k moves the model in every later step too, ``(1 - rho**(K - k + 1)) / (1 - rho)`` in all.

Where all take as many steps it is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.params import Tensors, add
from fedpress.server.strategies.compatibility import ANY_SGD, EXACT, POINTS, ROUNDS
from fedpress.server.strategies.fedavg import FedAvg, scaled
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share


@dataclass(frozen=True)
class FedNova(FedAvg):
    """No options of its own."""

    id: ClassVar[str] = "fednova"
    citation: ClassVar[str] = "Wang et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({ANY_SGD, EXACT, POINTS, ROUNDS})

    def share(self, arrival: Arrival) -> Share:
        """As in FedAvg, and ``|a|_1``. An update without steps is refused."""
        length = _length(arrival)
        return Share(super().share(arrival).weight, facts={"length": length}) if length > 0 else Share(0.0)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """One ``|a|_1``-th of it."""
        length = np.float32(_length(arrival))
        return {n: a / length for n, a in update.items()}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """``model + lr * tau_eff * mean(update / |a|_1)``."""
        return add(model, scaled(round_.facts["length"], scaled(self.lr, round_.mean))), state


def _length(arrival: Arrival) -> float:
    """``|a|_1`` of a client's steps."""
    steps, rho = arrival.steps, arrival.training.momentum
    return (steps - rho * (1.0 - rho**steps) / (1.0 - rho)) / (1.0 - rho)
