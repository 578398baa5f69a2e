"""IFCA (Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning"), with averaging of models.

There are ``clusters`` models: groups "cluster0", "cluster1", ... A device takes the one that fits its examples best,
trains that, and says which. Each model moves by the mean over those that chose it; one that nobody chose stays. The
first begins as the run's seed draws the model, the others with its elements in another order.

What a device sends of the clusters that it did not choose is one byte each: its codec leaves a group that did not
change alone, with what error feedback keeps back of it, so that this comes when the device chooses the cluster again
(faded, as after missed rounds). The server holds the clusters to it: what an update says of others is not read.

There is no single model that the server could measure or ship; devices measure theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedpress.compression.layout import Layout, beside, group
from fedpress.params import Spec, Tensors, add
from fedpress.server.strategies.compatibility import EXACT, LOSSES
from fedpress.server.strategies.fedavg import FedAvg, scaled
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share


@dataclass(frozen=True)
class Ifca(FedAvg):
    """``clusters``: how many models."""

    id: ClassVar[str] = "ifca"
    citation: ClassVar[str] = "Ghosh et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({EXACT, LOSSES})

    clusters: Annotated[int, Field(ge=1, le=16, description="models, of which each device chooses one")] = 2

    def layout(self, full: Spec) -> Layout:
        """A group per cluster. The first starts as the seed has it, those after it in orders 2, 3, ..."""
        return tuple(p for i in range(self.clusters) for p in beside(f"cluster{i}", full.names, i + 1 if i else 0))

    @property
    def client_half(self) -> str:
        """Its own."""
        return self.id

    def share(self, arrival: Arrival) -> Share:
        """As in FedAvg, for the chosen cluster; nothing without a cluster there is."""
        usual, chosen = super().share(arrival), self._chosen(arrival)
        return replace(usual, facts={chosen: 1.0}) if chosen else Share(0.0)

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """The chosen cluster's change alone."""
        chosen = self._chosen(arrival)
        return {n: a if group(n) == chosen else np.zeros_like(a) for n, a in update.items()}

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """Each cluster plus ``lr`` times the mean over those that chose it: the mean over all, by their share."""
        change = {n: a / np.float32(round_.facts.get(group(n), 1.0)) for n, a in round_.mean.items()}
        return add(model, scaled(self.lr, change)), state

    def _chosen(self, arrival: Arrival) -> str:
        number = arrival.report.facts.get("cluster", -1.0)
        return f"cluster{number:.0f}" if number in range(self.clusters) else ""
