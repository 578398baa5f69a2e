"""An audit of DP-SGD on the device, from inside: a canary whose gradient is as large as can be (Nasr et al. 2021).

The adversary sees every noised gradient, as the analysis of DP-SGD assumes. A linear model has the gradients it is
given, whatever its weights: the canary's is huge along one direction, all others pull the other way. One training of
many steps with every example in each is as many trials of one step, so thousands take seconds. The canary is left out
by giving it no gradient: how many examples a device has is not what local privacy hides.

Needs torch and opacus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch

from fedpress.privacy.audit.epsilon import between
from fedpress.privacy.audit.mechanism import Verdict
from fedpress.privacy.audit.roc import Scores
from fedpress.privacy.audit.tradeoff import epsilon_of
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb

#: The loss of each of the examples with these indices.
Loss: TypeAlias = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
#: ``train(module, optimizer, loss_of, examples, training, privacy, noise, seen)``: train privately; ``seen`` is called
#: before each step of the optimiser, when the module's parameters hold the noised gradients.
Train: TypeAlias = Callable[
    [
        torch.nn.Module,
        torch.optim.Optimizer,
        Loss,
        int,
        pb.Training,
        pb.LocalPrivacy,
        Noise,
        Callable[[], None],
    ],
    object,
]

_FEATURES: Final = 8
_HUGE: Final = 1e3


class _Linear(torch.nn.Module):
    """Two layers side by side, each on half the features: a clip that bounds them apart, not together, shows."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(_FEATURES // 2, 1, bias=False)
        self.right = torch.nn.Linear(_FEATURES // 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One number per example; its gradient is the example."""
        half = _FEATURES // 2
        out: torch.Tensor = (self.left(x[:, :half]) + self.right(x[:, half:])).reshape(-1)
        return out


def dp_sgd(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    examples: int,
    training: pb.Training,
    privacy: pb.LocalPrivacy,
    noise: Noise,
    seen: Callable[[], None],
) -> object:
    """What devices do."""
    from fedpress.privacy import local
    from fedpress.privacy.clipping import Objective

    def mean(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return loss_of(model, rows).mean()

    return local.train(module, optimizer, Objective(mean, loss_of), examples, training, privacy, (), noise, seen)


def audit(
    privacy: pb.LocalPrivacy,
    noise: Noise,
    train: Train = dp_sgd,
    *,
    honest: int = 3,
    trials: int = 2000,
    confidence: float = 0.99,
) -> Verdict:
    """Judge one step of ``train`` at the clip, noise and delta of ``privacy``, every example in it.

    ``trials``: steps with the canary, and as many without.
    """
    present, absent = (_steps(train, privacy, noise, honest, trials, canary) for canary in (_HUGE, 0.0))
    claimed = epsilon_of(1 / privacy.noise_multiplier, privacy.delta)
    return Verdict(claimed, between(present, absent, privacy.delta, confidence), trials)


def _steps(train: Train, privacy: pb.LocalPrivacy, noise: Noise, honest: int, trials: int, canary: float) -> Scores:
    """The canary's share in every step's noised gradient: float64[trials]."""
    direction = torch.full((_FEATURES,), _FEATURES**-0.5)
    strength = torch.tensor([-privacy.clip_norm] * honest + [canary * privacy.clip_norm])
    inputs = strength[:, None] * direction
    module = _Linear()
    shares: list[float] = []

    def loss_of(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        each: torch.Tensor = model(inputs[rows])
        return each

    def seen() -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in module.parameters()]
        shares.append(float(torch.cat([g.reshape(-1) for g in gradients]) @ direction))

    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)
    training = pb.Training(epochs=trials, batch_size=honest + 1, optimizer="sgd", lr=1e-6)
    train(module, optimizer, loss_of, honest + 1, training, privacy, noise, seen)
    return np.array(shares)
