"""Loss and metrics of the zoo's regressions. Needs torch."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from fedpress.params import Array


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of outputs float[n, 1] and targets float[n]."""
    return functional.mse_loss(outputs[:, 0], targets)


def metric(outputs: Array, targets: Array) -> dict[str, float]:
    """``mae``, ``mse`` and ``r2``, the share of the targets' variance that is explained.

    R2 is over the rows given: of a whole test set, those of one batch (``evaluate.batch_size``).
    """
    if len(targets) < 2:
        return {}
    errors = outputs[:, 0].astype(np.float64) - targets
    mse = float(np.mean(errors**2))
    return {"mae": float(np.mean(np.abs(errors))), "mse": mse, "r2": 1 - mse / float(np.var(targets))}
