"""LG-FedAvg (Liang et al. 2020, "Think Locally, Act Globally: Federated Learning with Local and Global
Representations").

FedPer the other way round: the *representation* is personal, learned on each device for its own kind of data, and the
head on top of it is shared. ``personal`` names the tensors of the representation, such as ``body.*``. Both are trained
together. Name the same tensors, and it is FedPer to the bit.

Deviations: the authors' experiments begin with a model that FedAvg trained; here all begins as the seed draws it. Their
auxiliary losses on the representation (fairness, self-supervision) are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.server.strategies.fedper import FedPer


@dataclass(frozen=True)
class LgFedAvg(FedPer):
    """``personal``: shell patterns of the local representation, such as ``body.*``."""

    id: ClassVar[str] = "lg-fedavg"
    citation: ClassVar[str] = "Liang et al. 2020"
