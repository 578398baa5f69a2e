"""FedNova (Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization"):
clients that take more steps do not pull the model further towards their own optimum.

An update of K steps of SGD is a sum of gradients with weights ``a``; divided by ``|a|_1`` it is a mean gradient, of the
same length whatever K is. The server takes the mean of those times ``tau_eff``, the mean of the ``|a|_1``. Without
momentum ``|a|_1`` is K. With heavy-ball momentum rho it is ``(K - rho (1 - rho**K) / (1 - rho)) / (1 - rho)``: the
gradient of step k moves the model in every later step too, ``(1 - rho**(K - k + 1)) / (1 - rho)`` in all.

Deviation: running statistics are averaged as they are. Where all take as many steps it is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.params import Tensors, add, learned
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
        """One ``|a|_1``-th of the update. One without steps is refused."""
        length = _length(arrival)
        weight = super().share(arrival).weight
        return Share(weight, 1.0 / length, {"length": length}) if length > 0 else Share(0.0)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """Running statistics times ``|a|_1``, which ``share`` takes off again."""
        names = set(learned(update))
        length = np.float32(_length(arrival))
        return {n: a if n in names else a * length for n, a in update.items()}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """``model + lr * tau_eff * mean(update / |a|_1)``."""
        names, mean = set(learned(model)), scaled(self.lr, round_.mean)
        effective = scaled(round_.facts["length"], mean)
        return add(model, {n: effective[n] if n in names else mean[n] for n in model}), state


def _length(arrival: Arrival) -> float:
    """``|a|_1`` of a client's steps."""
    steps, rho = arrival.steps, arrival.training.momentum
    return (steps - rho * (1.0 - rho**steps) / (1.0 - rho)) / (1.0 - rho)
