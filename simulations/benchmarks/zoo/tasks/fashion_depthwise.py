"""Fashion-MNIST with a depthwise CNN with BatchNorm."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.pictures import fashion as data

__all__ = ["data", "model"]


def model() -> Any:
    """Three convolutions, two of them depthwise."""
    from torch import nn

    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn

    return cnn((1, 32, 64, 128), 10, nn.BatchNorm2d, depthwise=True)
