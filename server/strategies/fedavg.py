"""Federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
Data").

Stated in deltas: the next model is the last one plus the mean of the clients' updates, weighted by their examples. The
same as the paper's mean of models, since all updates of a round start from one version. With a server learning rate
``lr`` other than 1 the mean is scaled first (Reddi et al. 2021, "Adaptive Federated Optimization", with SGD as the
server's optimiser): updates that a lossy codec has shortened arrive at their length again with 1.2 to 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.params import Spec, Tensors, add
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class FedAvg:
    """``weighting``: "examples" as in the paper, or "uniform"; ``lr``: the server's learning rate; ``discount``: the
    exponent by which late updates count for less (FedAsync's polynomial, Xie et al. 2019)."""

    id: ClassVar[str] = "fedavg"
    citation: ClassVar[str] = "McMahan et al. 2017"
    weighting: str = "examples"
    lr: float = 1.0
    discount: float = 0.5

    def personal(self, spec: Spec) -> tuple[str, ...]:  # noqa: ARG002 - every tensor travels
        """None."""
        return ()

    def rule(self, spec: Spec) -> pb.Rule:
        """Plain local training."""
        return pb.Rule(name=self.id, personal=self.personal(spec))

    def weight(self, report: pb.Report, staleness: int) -> float:
        """Examples, or 1; times ``(1 + staleness) ** -discount``."""
        weight = float(report.examples) if self.weighting == "examples" else 1.0
        return weight * float((1 + staleness) ** -self.discount)

    def init(self, spec: Spec) -> Tensors:  # noqa: ARG002 - nothing to remember
        """Nothing."""
        return {}

    def step(self, model: Tensors, mean: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """``model + lr * mean``."""
        if self.lr != 1.0:
            mean = {name: array * np.float32(self.lr) for name, array in mean.items()}
        return add(model, mean), state
