"""Linear regression on diabetes: ten standardised features, targets in raw units (25 to 346), 177 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.simulations.benchmarks.zoo.tasks.regression import loss, metric
from fedpress.task import Data

__all__ = ["data", "loss", "metric", "model"]


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.bundled``."""
    return tables.bundled("diabetes", share=0.4)


def model() -> Any:
    """11 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(10, 1)
