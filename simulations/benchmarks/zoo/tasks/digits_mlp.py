"""digits, standardised, half of them for the test, with a perceptron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.bundled``."""
    return tables.bundled("digits", share=0.5)


def model() -> Any:
    """64-64-32-10: 6570 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(64, 64, 32, 10)
