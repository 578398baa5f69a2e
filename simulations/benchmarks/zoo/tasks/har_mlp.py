"""har's 561 features with a perceptron."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.signals import features as data

__all__ = ["data", "model"]


def model() -> Any:
    """561-64-6: 36 358 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(561, 64, 6)
