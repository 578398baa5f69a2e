"""Federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
Data").

Stated in deltas: the next model is the last one plus the mean of the clients' updates, weighted by their examples. The
same as the paper's mean of models, since all updates of a round start from one version. With a server learning rate
``lr`` other than 1 the mean of the weights' updates is scaled first (Reddi et al. 2021, "Adaptive Federated
Optimization", with SGD as the server's optimiser).

An update against an older version weighs ``(1 + staleness) ** -discount`` of a fresh one (Xie et al. 2019's
polynomial).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedpress.compression.layout import Layout, plain
from fedpress.params import Spec, Tensors, add
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share


@dataclass(frozen=True)
class FedAvg:
    """``weighting``: "examples" as in the paper, or "uniform"; ``lr``: the server's learning rate; ``discount``: the
    exponent by which late updates count for less (FedAsync's polynomial, Xie et al. 2019)."""

    id: ClassVar[str] = "fedavg"
    citation: ClassVar[str] = "McMahan et al. 2017"
    needs: ClassVar[frozenset[str]] = frozenset()
    server_lr: ClassVar[float] = 1.0
    corrects: ClassVar[bool] = False
    #: Options that devices are told.
    told: ClassVar[tuple[str, ...]] = ()

    weighting: Literal["examples", "uniform"] = "examples"
    lr: Annotated[float, Field(gt=0)] = 1.0
    discount: Annotated[float, Field(ge=0)] = 0.0

    def layout(self, full: Spec) -> Layout:
        """Every tensor of the model."""
        return plain(full.names)

    def rule(self, full: Spec) -> pb.Rule:
        """Plain local training; what does not travel is personal."""
        travels = {p.of for p in self.layout(full)}
        options = {name: float(getattr(self, name)) for name in self.told}
        return pb.Rule(name=self.client_half, personal=[n for n in full.names if n not in travels], options=options)

    def apart(self, full: Spec) -> tuple[tuple[str, ...], ...]:  # noqa: ARG002 - a strategy's signature
        """None: the whole model moves at once."""
        return ()

    @property
    def client_half(self) -> str:
        """The rule's name: "fedavg", or that of a strategy which asks for more."""
        return self.id if self.told else FedAvg.id

    def share(self, arrival: Arrival) -> Share:
        """Examples, or 1; less if stale."""
        weight = float(arrival.report.examples) if self.weighting == "examples" else 1.0
        return Share(weight, (1.0 + arrival.staleness) ** -self.discount)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:  # noqa: ARG002 - a strategy's signature
        """As it came."""
        return update

    def init(self, spec: Spec) -> Tensors:  # noqa: ARG002 - nothing to remember
        """Nothing."""
        return {}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """``model + lr * mean``."""
        return add(model, scaled(self.lr, round_.mean)), state


def scaled(factor: float, tensors: Tensors) -> Tensors:
    """``factor`` times the tensors, in float32; the tensors themselves for 1."""
    return tensors if factor == 1.0 else {name: array * np.float32(factor) for name, array in tensors.items()}
