"""Linear regression on eight standardised features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.simulations.benchmarks.zoo.tasks.regression import loss, metric
from fedpress.task import Data

__all__ = ["data", "loss", "metric", "model"]


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.linear``."""
    return tables.linear()


def model() -> Any:
    """9 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(8, 1)
