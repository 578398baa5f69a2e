"""Logistic regression on two classes that a plane divides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.separable``."""
    return tables.separable()


def model() -> Any:
    """28 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(13, 2)
