"""Topics of texts with a large embedding and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tokens.topics``."""
    return tokens.topics()


def model() -> Any:
    """64 264 parameters, all but 264 of them in the embedding."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import bag

    return bag(tokens.WORDS, width=32, classes=8)
