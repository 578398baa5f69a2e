"""Regression on prices of houses from raw units, with BatchNorm on the inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.simulations.benchmarks.zoo.tasks.regression import loss, metric
from fedpress.task import Data

__all__ = ["data", "loss", "metric", "model"]


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.houses``."""
    return tables.houses()


def model() -> Any:
    """8-64-32-1 with BatchNorm."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import normed_mlp

    return normed_mlp(8, 64, 32, 1)
