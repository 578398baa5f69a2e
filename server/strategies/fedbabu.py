"""FedBABU (Oh et al. 2022, "FedBABU: Toward Enhanced Representation for Federated Image Classification").

The head (the tensors that match ``personal``) stays on every device as the run's seed drew it and is not trained in the
federation: all clients learn one body for the same head. A device's personal model is the global one, all of it
fine-tuned on its data for ``fine_tune_epochs``; it is measured and forgotten.

Deviations: the server measures nothing, since it holds no head, though the seed would give it one. Fine-tuning takes
the learning rate of the round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.params import Spec
from fedpress.server.strategies.compatibility import POINTS
from fedpress.server.strategies.fedper import FedPer
from fedpress.server.strategies.finetune import Epochs


@dataclass(frozen=True)
class FedBABU(FedPer):
    """``personal``: patterns of the head; ``fine_tune_epochs``: passes that make the personal model, 5 in the paper."""

    id: ClassVar[str] = "fedbabu"
    citation: ClassVar[str] = "Oh et al. 2022"
    needs: ClassVar[frozenset[str]] = frozenset({POINTS})
    told: ClassVar[tuple[str, ...]] = ("fine_tune_epochs",)

    fine_tune_epochs: Epochs = 5

    def apart(self, full: Spec) -> tuple[tuple[str, ...], ...]:
        """The body."""
        return (tuple(p.of for p in self.layout(full)),)
