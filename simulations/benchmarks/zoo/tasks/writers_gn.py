"""femnist's first 40 writers with a CNN with GroupNorm."""

from __future__ import annotations

from typing import Any

from fedpress.simulations.benchmarks.zoo.tasks.pictures import writers as data

__all__ = ["data", "model"]


def model() -> Any:
    """Three convolutions."""
    from fedpress.simulations.benchmarks.zoo.tasks.layers import cnn, group_norm

    return cnn((1, 16, 32, 64), 62, group_norm)
