"""FedRep (Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning").

As FedPer, but one after the other: each round a device first trains its own head (the tensors that match ``personal``)
on the representation that arrived, ``head_epochs`` long, then the representation under that head, as the plan's
``train`` says. Only the representation travels.

Deviations: the paper's algorithm moves the representation by one gradient step, here it has the plan's ``epochs``. Both
parts have the plan's optimiser, learning rate and batches; ``max_steps`` limits each of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.params import Spec
from fedpress.server.strategies.compatibility import POINTS
from fedpress.server.strategies.fedper import FedPer


@dataclass(frozen=True)
class FedRep(FedPer):
    """``personal``: patterns of the head; ``head_epochs``: the paper's tau, 10 in its experiments."""

    id: ClassVar[str] = "fedrep"
    citation: ClassVar[str] = "Collins et al. 2021"
    needs: ClassVar[frozenset[str]] = frozenset({POINTS})
    told: ClassVar[tuple[str, ...]] = ("head_epochs",)

    head_epochs: Annotated[int, Field(ge=1, le=1000, description="passes that train the head, before the body")] = 10

    def apart(self, full: Spec) -> tuple[tuple[str, ...], ...]:
        """The head, then the body."""
        body = tuple(p.of for p in self.layout(full))
        return tuple(n for n in full.names if n not in body), body
