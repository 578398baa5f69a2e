"""DP-SGD's noisy gradient of a perceptron in NumPy, exact and without a gradient per example in memory.

An example's gradient of a linear layer is the outer product of what pushes on its outputs, ``p``, and what flows in,
``a``; its norm is ``|p| * |a|``, that of the bias ``|p|``. So norms cost a row sum, and clipping is a weight per
example in the one product that gives the sum (Goodfellow 2015, "Efficient Per-Example Gradient Computations"). That is
what ghost clipping does: for this trainer "ghost" and "flat" are one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.client.trainers.numpy_network import Network
from fedpress.params import Array
from fedpress.privacy.dpsgd import PER_LAYER, SMALL, Mechanism


def noisy(
    network: Network,
    point: Mapping[str, Any],
    flows: list[Array],
    y: NDArray[np.int64],
    only: Collection[str] | None,
    guard: Mechanism,
) -> dict[str, Array]:
    """``(sum of clipped gradients + noise) / expected batch`` of the tensors named ``only`` (None: of all). ``flows``:
    what ``forward`` gave for the step's examples, which may be none."""
    inflow, push = {}, {}
    for name, flow, pushed in zip(network.layers, flows, network.pushes(point, flows, y), strict=False):
        inflow[f"{name}.weight"], inflow[f"{name}.bias"] = flow, np.ones((len(y), 1), np.float32)
        push[f"{name}.weight"] = push[f"{name}.bias"] = pushed
    chosen = [name for name in inflow if only is None or name in only]
    squared = {n: _squared(inflow[n]) * _squared(push[n]) for n in chosen}
    if guard.clipping != PER_LAYER:
        whole = sum(squared.values(), np.zeros(len(y), np.float32))
        squared = dict.fromkeys(chosen, whole)
    found: dict[str, Array] = {}
    for name in chosen:
        share = np.minimum(1, guard.bound(len(chosen)) / (np.sqrt(squared[name]) + SMALL)).astype(np.float32)
        total = ((share[:, None] * push[name]).T @ inflow[name]).reshape(point[name].shape)
        drawn = guard.drawn_noise(total.size).astype(np.float32).reshape(total.shape)
        found[name] = (total + drawn) / np.float32(guard.mean_batch)
    return found


def _squared(rows: Array) -> Array:
    """Squared length of each row."""
    found: Array = np.einsum("nk,nk->n", rows, rows)
    return found
