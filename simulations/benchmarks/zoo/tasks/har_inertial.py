"""har's raw signals with convolutions over time with GroupNorm."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.signals import inertial as data

__all__ = ["data", "model"]


def model() -> Any:
    """Three convolutions."""
    from fedpress.simulations.tasks.networks import signal_cnn

    return signal_cnn(channels=(9, 32, 64, 64), classes=6)
