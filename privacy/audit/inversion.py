"""What an update shows of the examples behind it: gradient inversion (Zhu, Liu, Han 2019).

An input is sought whose gradient points where the update does, as Geiping, Bauermeister, Dröge and Moeller (2020) do
it: cosine distance, signs of the input's gradients through Adam, steps that shrink, the input kept in its range, and
for images a price on total variation. The attacker knows the model, the labels and the range: more than most would.
Needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from fedpress import torch_model
from fedpress.params import Array, Tensors
from fedpress.task import Task

_SHRINK: Final = 0.1
_SHRINK_AT: Final = (3 / 8, 5 / 8, 7 / 8)
_STEP: Final = 0.1  # of the range, at first
_ROUGHNESS: Final = 1e-3  # what total variation counts, where inputs are images


@dataclass(frozen=True)
class Range:
    """What inputs lie between; PSNR is relative to it."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """``high - low``, 1 where they are the same."""
        return self.high - self.low or 1.0

    def psnr(self, mse: float) -> float:
        """Peak signal-to-noise ratio of a mean squared error, in dB; at most 100."""
        return min(100.0, 10 * math.log10(self.width**2 / mse)) if mse > 0 else 100.0


def invert(
    task: Task,
    module: torch.nn.Module,
    update: Tensors,
    y: Array,
    shape: tuple[int, ...],
    inside: Range,
    seed: int,
    steps: int = 300,
    each: Callable[[], object] = lambda: None,
) -> Array:
    """Inputs float32[len(y), *shape] whose gradient at ``module`` points as ``-update`` does, as far as was found.

    ``each`` is called at every step. The module's parameters are not changed.
    """
    module.eval()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad and n in update}
    wanted = [-torch_model.tensor(update[n]) for n in parameters]
    targets = torch_model.tensor(y)
    draw = torch.Generator().manual_seed(seed)
    x = (inside.low + inside.width * torch.rand((len(y), *shape), generator=draw)).requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=_STEP * inside.width)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(s * steps) for s in _SHRINK_AT], gamma=_SHRINK)
    best, least = x.detach().clone(), math.inf
    for _ in range(steps):
        loss = torch_model.batch_loss(task, module(x), targets)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        distance = _distance(gradients, wanted) + _ROUGHNESS / inside.width * _variation(x)
        if float(distance.detach()) < least:
            best, least = x.detach().clone(), float(distance.detach())
        (x.grad,) = torch.autograd.grad(distance, [x])
        x.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(inside.low, inside.high)
        each()
    return np.asarray(best.numpy(), np.float32)


def _distance(these: tuple[torch.Tensor, ...], those: list[torch.Tensor]) -> torch.Tensor:
    """One less the cosine between two gradients, over all tensors; 1 for an update of nothing."""
    product = sum((a * b).sum() for a, b in zip(these, those, strict=True))
    norms = [torch.stack([(a * a).sum() for a in some]).sum().sqrt() for some in (these, those)]
    cosine: torch.Tensor = product / (norms[0] * norms[1] + 1e-20)
    return 1 - cosine


def _variation(x: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels of images [n, (channels,) h, w]; 0 for anything else."""
    if x.dim() < 3 or min(x.shape[-2:]) < 4:
        return x.new_zeros(())
    across = (x[..., :, 1:] - x[..., :, :-1]).abs().mean()
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
    return across + down
