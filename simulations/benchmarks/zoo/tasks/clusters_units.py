"""Six classes of two clouds each in raw units, columns differing by 10 000, with logistic regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.clusters``."""
    return tables.clusters(tables.UNITS, close=0.5)


def model() -> Any:
    """78 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(12, 6)
