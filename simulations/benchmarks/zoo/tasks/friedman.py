"""Regression on Friedman's function with a perceptron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.simulations.benchmarks.zoo.tasks.regression import loss, metric
from fedpress.task import Data

__all__ = ["data", "loss", "metric", "model"]


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.friedman``."""
    return tables.friedman()


def model() -> Any:
    """10-64-32-1: 2817 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(10, 64, 32, 1)
