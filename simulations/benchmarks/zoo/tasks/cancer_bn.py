"""breast_cancer in raw units (0.001 to 2500) with BatchNorm, 285 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.bundled``."""
    return tables.bundled("breast_cancer", share=0.5, standardised=False)


def model() -> Any:
    """30-32-2 with BatchNorm."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import normed_mlp

    return normed_mlp(30, 32, 2)
