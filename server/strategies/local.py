"""Purely local training: each device trains a model of its own, round after round, and shares nothing.

The other baseline of personalisation: what the federation must beat. Rounds, selection, schedules and evaluation are
those of the plan, so that it compares; models begin as the run's seed draws them, updates and downloads have no bytes,
and what the server hears is reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.compression.layout import Layout
from fedpress.params import Spec
from fedpress.server.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Local(FedAvg):
    """Every tensor is personal."""

    id: ClassVar[str] = "local"
    citation: ClassVar[str] = "no federation"

    def layout(self, full: Spec) -> Layout:  # noqa: ARG002 - a strategy's signature
        """Nothing."""
        return ()
