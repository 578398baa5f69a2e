"""Logistic regression on breast_cancer, standardised: 30 measurements, two classes, 285 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tables
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tables.bundled``."""
    return tables.bundled("breast_cancer", share=0.5)


def model() -> Any:
    """62 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(30, 2)
