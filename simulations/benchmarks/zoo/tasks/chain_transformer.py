"""Next symbols of a Markov chain with a causal transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tokens.chain``."""
    return tokens.chain()


def model() -> Any:
    """Two blocks."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import transformer

    return transformer(tokens.SYMBOLS, time=16, width=32, depth=2)
