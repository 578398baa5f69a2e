"""Next symbols of a Markov chain with an LSTM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks import tokens
from fedpress.task import Data


def data(directory: Path) -> Data:  # noqa: ARG001 - drawn or bundled, so no directory
    """See ``tokens.chain``."""
    return tokens.chain()


def model() -> Any:
    """An embedding and an LSTM."""
    from torch import nn

    from fedpress.simulations.benchmarks.zoo.tasks.layers import recurrent

    return recurrent(nn.LSTM, tokens.SYMBOLS, width=16, hidden=48, classes=tokens.SYMBOLS, every=True)
