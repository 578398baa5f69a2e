"""Which marker comes last, with a GRU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tokens.order``."""
    return tokens.order()


def model() -> Any:
    """An embedding and a GRU."""
    from torch import nn

    from fedpress.simulations.benchmarks.zoo.tasks.layers import recurrent

    return recurrent(nn.GRU, tokens.SYMBOLS, width=16, hidden=48, classes=4)
