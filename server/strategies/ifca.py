"""IFCA (Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning"), with averaging of models.

There are ``clusters`` models: groups "cluster0", "cluster1", ... A device takes the one that fits its examples best,
trains that, and says which. Each model moves by the mean over those that chose it; one that nobody chose stays. The
first begins as the run's seed draws the model, the others with the elements of its weights in another order.

What a device sends of the clusters that it did not choose is one byte each: its codec leaves a group that did not
change alone, with what error feedback keeps back of it, so that this comes when the device chooses the cluster again
(faded, as after missed rounds). The server holds the clusters to it: what an update says of others is not read.

There is no single model that the server could measure or ship; devices measure theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.compression.layout import Layout, Part
from fedpress.params import Spec
from fedpress.server.strategies.compatibility import EXACT, LOSSES
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.strategy import Arrival, Share


@dataclass(frozen=True)
class Ifca(FedAvg):
    """``clusters``: how many models."""

    id: ClassVar[str] = "ifca"
    citation: ClassVar[str] = "Ghosh et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({EXACT, LOSSES})

    clusters: Annotated[int, Field(ge=1, le=16, description="models, of which each device chooses one")] = 2

    def layout(self, full: Spec) -> Layout:
        """A group per cluster. The first starts as the seed has it, the weights of those after it in orders 2, 3 ..."""
        return tuple(
            Part(f"cluster{i}:{t.name}", t.name, i + 1 if i and t.kind == "weight" else 0)
            for i in range(self.clusters)
            for t in full
        )

    @property
    def client_half(self) -> str:
        """Its own."""
        return self.id

    def share(self, arrival: Arrival) -> Share:
        """As in FedAvg, in the chosen cluster; nothing without a cluster there is."""
        number = arrival.report.facts.get("cluster", -1.0)
        if number not in range(self.clusters):
            return Share(0.0)
        return replace(super().share(arrival), groups=(f"cluster{number:.0f}",))
