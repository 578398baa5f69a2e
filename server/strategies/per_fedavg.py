"""Per-FedAvg (Fallah et al. 2020, "Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic
Meta-Learning Approach").

The shared model is trained to be good after one gradient step of rate ``inner`` on a device's own data, and that step
is what a device takes before it uses it. The gradient of this objective has a Hessian in it: variant "fo" drops it
(first-order MAML), variant "hf" estimates its product with a vector from two gradients that are ``delta`` of it away.
``train.lr`` is the paper's beta. With ``inner`` = 0 it is FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedpress.server.strategies.compatibility import GRADIENTS, SGD, UNCLIPPED
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class PerFedAvg(FedAvg):
    """``inner``: the paper's alpha. A variant is a rule of its own: devices are told of it by the rule's name."""

    id: ClassVar[str] = "per-fedavg"
    citation: ClassVar[str] = "Fallah et al. 2020"
    needs: ClassVar[frozenset[str]] = frozenset({GRADIENTS, SGD, UNCLIPPED})
    told: ClassVar[tuple[str, ...]] = ("inner", "delta")

    variant: Annotated[Literal["fo", "hf"], Field(description="first-order, or with a Hessian-free estimate")] = "fo"
    inner: Annotated[float, Field(ge=0, description="rate of the step that makes the model personal")] = 0.05
    delta: Annotated[float, Field(gt=0, description="how far apart the gradients of variant hf are taken")] = 0.01

    @property
    def client_half(self) -> str:
        """The variant's."""
        return f"{self.id}-{self.variant}"
