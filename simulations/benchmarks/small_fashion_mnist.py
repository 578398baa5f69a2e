"""fashion-mnist with a small network for ``bench privacy``: noise grows with the parameters, signal does not."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.tasks.fashion_mnist import data

__all__ = ["data", "model"]


def model() -> Any:
    """Two convolutions and two linear layers with tanh between: 14 k parameters."""
    from fedpress.simulations.tasks.networks import tanh_cnn

    return tanh_cnn(channels=(8, 16), hidden=16, classes=10)
