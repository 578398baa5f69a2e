"""APFL (Deng et al. 2020, "Adaptive Personalized Federated Learning").

A device uses the mixture ``alpha * v + (1 - alpha) * w`` of a model of its own and the shared one. Its copy of ``w`` is
trained and averaged as in FedAvg, ``v`` by the gradient at the mixture. With ``adaptive`` each device moves its own
``alpha`` by the gradient too, at every step; alpha and ``v`` stay there. With alpha = 0 the personal model is the
shared one, with 1 it is local training.

Deviation: the paper's step sizes follow a schedule of theirs; here both models and alpha take ``train.lr``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.server.strategies.compatibility import GRADIENTS, SGD, UNCLIPPED
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Apfl(FedAvg):
    """``alpha``: the device's own share of its mixture, at first if ``adaptive``."""

    id: ClassVar[str] = "apfl"
    citation: ClassVar[str] = "Deng et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({GRADIENTS, SGD, UNCLIPPED})
    told: ClassVar[tuple[str, ...]] = ("alpha", "adaptive")

    alpha: Annotated[float, Field(ge=0, le=1, description="share of the device's own model in its mixture")] = 0.5
    adaptive: Annotated[bool, Field(description="each device moves its alpha by the gradient")] = False
