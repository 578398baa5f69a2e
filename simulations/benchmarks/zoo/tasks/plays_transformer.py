"""Next characters of Shakespeare's roles with a causal transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:
    """See ``tokens.plays``."""
    return tokens.plays(directory)


def model() -> Any:
    """Two blocks."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import transformer

    return transformer(tokens.CHARACTERS, tokens.WINDOW, width=48, depth=2)
