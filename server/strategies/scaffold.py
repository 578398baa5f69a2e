"""SCAFFOLD (Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"), option II.

The server's control variate ``c`` travels down in the group "control". What a client adds to it follows from its update
``d`` of K steps of rate eta, ``-c - d / (K eta)``: the server makes it from the decoded update, so that SCAFFOLD costs
the upload of FedAvg (the paper sends it). The client moves its own ``c_i`` by its update as the server reads it, so
that ``c`` is the mean of all ``c_i`` whatever the codec, and whoever joins (``population``). By its exact update, what
the codec keeps back would be added twice: by error feedback, and by the next round's correction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.compression.layout import Layout, beside, grouped, part, plain
from fedpress.params import Spec, Tensors, add
from fedpress.server.strategies.compatibility import EXACT, POINTS, ROUNDS, SGD
from fedpress.server.strategies.fedavg import FedAvg, scaled
from fedpress.server.strategies.population import Population
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """``lr``: the paper's eta_g. Updates count alike, as in the paper."""

    id: ClassVar[str] = "scaffold"
    citation: ClassVar[str] = "Karimireddy et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({EXACT, POINTS, ROUNDS, SGD})
    corrects: ClassVar[bool] = True

    def layout(self, full: Spec) -> Layout:
        """The model, and a control variate for each weight."""
        return (*plain(full.names), *beside("control", full.named("weight")))

    @property
    def client_half(self) -> str:
        """Its own."""
        return self.id

    def share(self, arrival: Arrival) -> Share:
        """All alike. One whose steps cannot be is refused: its variate would be too."""
        return Share(1.0 if arrival.steps else 0.0)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """The update, and the change of its client's control variate."""
        delta, common = part("", update), part("control", arrival.base())
        moved = np.float32(arrival.steps * arrival.training.lr)
        change = {n: -c - delta[n] / moved if moved > 0 else np.zeros_like(c) for n, c in common.items()}
        return {**update, **grouped("control", change)}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """``x + lr * mean(d)``, and ``c + |S| / N * mean(change)``, ``c`` over as many clients as there are now."""
        clients, moved = Population.of(round_, state), part("control", round_.mean)
        control = {n: clients.stays * c + clients.seen * moved[n] for n, c in part("control", model).items()}
        new = add(part("", model), scaled(self.lr, part("", round_.mean)))
        return {**new, **grouped("control", control)}, clients.state
