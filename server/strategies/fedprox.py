"""FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks"): FedAvg whose clients are held near the
model that they were sent, by ``mu / 2 * |w - w_global|**2`` in the local objective. With mu = 0 it is FedAvg.

Deviation: the paper's clients may stop at any inexactness; here all do the plan's local steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.server.strategies.compatibility import POINTS
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    """``mu``: the weight of the proximal term."""

    id: ClassVar[str] = "fedprox"
    citation: ClassVar[str] = "Li et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({POINTS})
    told: ClassVar[tuple[str, ...]] = ("mu",)

    mu: Annotated[float, Field(ge=0, description="weight of the proximal term")] = 0.01
