"""Six classes of two clouds each in raw units, columns differing by 10 000 and far from zero, with BatchNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.clusters``."""
    return tables.clusters(tables.UNITS, shift=5 * tables.UNITS)


def model() -> Any:
    """12-64-32-6 with BatchNorm."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import normed_mlp

    return normed_mlp(12, 64, 32, 6)
