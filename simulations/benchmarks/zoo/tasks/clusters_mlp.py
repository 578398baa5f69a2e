"""Six classes of two clouds each, standardised, with a perceptron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.clusters``."""
    return tables.clusters()


def model() -> Any:
    """12-128-64-6: 10 310 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(12, 128, 64, 6)
