"""pFedMe (T Dinh et al. 2020, "Personalized Federated Learning with Moreau Envelopes").

Each device's personal model nearly solves ``min f(theta; batch) + lam / 2 * |theta - w|**2``, by ``inner`` steps of
``train.lr``; then its copy ``w`` of the shared model goes ``eta * lam`` of the way to it; and so on with the next
batch. The server moves by the mean of what the copies moved, times the paper's beta: here ``strategy.lr``. The paper's
mean is that of ``strategy.weighting = "uniform"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedpress.errors import PlanError
from fedpress.server.strategies.compatibility import GRADIENTS, SGD, UNCLIPPED
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class PFedMe(FedAvg):
    """``lr``: the paper's beta. Inner steps are stable where ``train.lr * lam`` is well below 2."""

    id: ClassVar[str] = "pfedme"
    citation: ClassVar[str] = "T Dinh et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({GRADIENTS, SGD, UNCLIPPED})
    told: ClassVar[tuple[str, ...]] = ("lam", "eta", "inner")

    lam: Annotated[float, Field(ge=0, description="pull of the personal model towards the shared one")] = 5.0
    eta: Annotated[float, Field(gt=0, description="step of the shared model's copy towards the personal one")] = 0.1
    inner: Annotated[int, Field(ge=1, description="steps of the personal model on each batch")] = 5

    def __post_init__(self) -> None:
        if self.eta * self.lam > 1:
            raise PlanError(
                f"Expected eta * lam <= 1, got {self.eta:g} * {self.lam:g}: the shared model would step beyond the "
                "personal one (strategy.eta)."
            )
