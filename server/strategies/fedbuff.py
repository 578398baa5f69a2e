"""FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation").

The server steps once ``cohort.buffer`` updates are in, whichever versions they build on: the sum of ``s(staleness)``
times the updates over their number, with ``s(t) = (1 + t) ** -discount``. Updates count alike, as in the paper. Any
strategy that needs no rounds can be run so (``cohort.buffer``); this one is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.server.strategies.compatibility import BUFFER
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.strategy import Arrival, Share


@dataclass(frozen=True)
class FedBuff(FedAvg):
    """``lr``: the paper's eta_g."""

    id: ClassVar[str] = "fedbuff"
    citation: ClassVar[str] = "Nguyen et al. 2022"
    needs: ClassVar[frozenset[str]] = frozenset({BUFFER})

    def share(self, arrival: Arrival) -> Share:
        """One of K, less if stale."""
        return Share(1.0, (1.0 + arrival.staleness) ** -self.discount)
