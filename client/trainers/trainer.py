"""What a trainer is: it turns a model and the device's own data into a better model.

A trainer sees whole models (shared and personal tensors together, in its ``spec``'s order) and knows nothing of rounds,
codecs or the wire. All its randomness comes from the stream it is given, so that a simulation repeats exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors
from fedpress.privacy.accounting import History, Steps
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Trained:
    """What training gave. ``loss`` is the mean over the examples seen; ``spent`` is None without local privacy."""

    tensors: Tensors
    examples: int
    steps: int
    loss: float
    spent: Steps | None = None


class Trainer(Protocol):
    """See the module's docstring."""

    name: ClassVar[str]
    """As in the registry and in plans; what the device tells the server it can do."""

    @property
    def spec(self) -> Spec:
        """Every tensor of the model, personal ones included."""

    def initial(self, seed: int) -> Tensors:
        """The model before any training: the same on every device for the same seed."""

    def train(
        self,
        model: Tensors,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
    ) -> Trained:
        """Train on the local data. ``model`` is not changed. ``history`` is what earlier training spent.

        Raises BudgetSpent, before any data is touched, where ``privacy`` sets a budget that this would pass.
        """

    def evaluate(self, model: Tensors) -> tuple[Mapping[str, float], int]:
        """Metrics on the device's held-out data, and how many examples are behind them ({} and 0 if none)."""
