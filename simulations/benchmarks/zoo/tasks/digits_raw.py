"""digits in raw units (0 to 16), half of them for the test, with a perceptron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.bundled``."""
    return tables.bundled("digits", share=0.5, standardised=False)


def model() -> Any:
    """64-128-10: 9610 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(64, 128, 10)
