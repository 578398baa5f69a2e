"""MNIST with a CNN without a norm."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.pictures import mnist as data

__all__ = ["data", "model"]


def model() -> Any:
    """Two convolutions and two linear layers."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((1, 8, 16), 10, hidden=32)
