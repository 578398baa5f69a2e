"""Next characters of Shakespeare's roles with a GRU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:
    """See ``tokens.plays``."""
    return tokens.plays(directory)


def model() -> Any:
    """An embedding and a GRU."""
    from torch import nn

    from fedpress.simulations.benchmarks.zoo.tasks.layers import recurrent

    return recurrent(nn.GRU, tokens.CHARACTERS, width=24, hidden=96, classes=tokens.CHARACTERS, every=True)
