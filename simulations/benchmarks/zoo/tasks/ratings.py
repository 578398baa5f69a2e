"""Regression on ratings with two embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.simulations.benchmarks.zoo.tasks.regression import loss, metric
from fedpress.task import Data

__all__ = ["data", "loss", "metric", "model"]


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tokens.ratings``."""
    return tokens.ratings()


def model() -> Any:
    """6300 parameters."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import Pairs

    return Pairs(tokens.ROWS, tokens.COLUMNS, width=8)
