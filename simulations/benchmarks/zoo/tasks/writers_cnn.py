"""femnist's first 40 writers with a CNN without a norm."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.pictures import writers as data

__all__ = ["data", "model"]


def model() -> Any:
    """Two convolutions and two linear layers."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((1, 16, 32), 62, hidden=64)
