"""FedAsync (Xie et al. 2019, "Asynchronous Federated Optimization"): every update makes a version.

``x <- (1 - a) x + a (x_base + d)`` with ``a = alpha * (1 + staleness) ** -discount``: the mean of the newest model
and of the client's, which is its update ``d`` on the version that it was given. The pull back to an older base is
what the paper has beyond FedBuff with a buffer of one. The base is the version as devices saw it; where it cannot be
made again (download codecs without ``ladder``) only ``d`` counts.

Deviation: no proximal term on the device; ``fedprox`` has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.params import Tensors, add, subtract
from fedpress.server.strategies.compatibility import EACH
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.strategy import Arrival, Share


@dataclass(frozen=True)
class FedAsync(FedAvg):
    """``alpha``: the share of a fresh update's model in the mean. ``lr`` scales what it moves."""

    id: ClassVar[str] = "fedasync"
    citation: ClassVar[str] = "Xie et al. 2019"
    needs: ClassVar[frozenset[str]] = frozenset({EACH})

    alpha: Annotated[float, Field(gt=0, le=1, description="share of a fresh client's model in the next")] = 0.6

    def share(self, arrival: Arrival) -> Share:
        """Alone in its round."""
        return Share(1.0, self.alpha * (1.0 + arrival.staleness) ** -self.discount)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """From the newest model to the client's."""
        if not arrival.staleness:
            return update
        return add(update, subtract(arrival.base(), arrival.newest()))
