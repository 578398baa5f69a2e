"""Sums of updates with a share of another, in one pass over memory."""

from __future__ import annotations

import numpy as np

from fedpress.compression.native import kernels
from fedpress.params import Array, Tensors


def plus(x: Tensors, share: float, y: Tensors) -> dict[str, Array]:
    """``x + share * y``, float32, tensor by tensor: the product is rounded, then the sum. -1 subtracts exactly."""
    out = {name: np.empty(array.shape, np.float32) for name, array in x.items()}
    for name, array in x.items():
        kernels.plus(np.ravel(array), share, np.ravel(y[name]), out[name].reshape(-1))
    return out
