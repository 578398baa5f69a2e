"""Two clients, a body ``b`` and a head ``h`` of one number each: every strategy's numbers, worked out by hand.

A client's loss is ``(b * h - y)**2 / 2``. With e = b * h - y its gradients are h * e for b and b * e for h. Both begin
at 1, the learning rate is 1/2, a pass is one step. Client A has y = 3 and three examples, client B y = -1 and one, so
that a shared number moves by (3 * A's change + B's change) / 4. All results are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.trainers.trainer import Trainer
from fedpress.task import ClientData, Split, Task


class Number(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))


class Product(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Number(), Number()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body.w * self.head.w * x


class Normalised(torch.nn.Module):
    """``w`` plus the normalised input, whose mean over a batch is the normalisation's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = Number(), torch.nn.BatchNorm1d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.norm(x)
        return self.body.w - 1 + normal


def error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of the mean output, so that a batch counts as one example."""
    return (outputs.mean() - targets.mean()) ** 2 / 2


def trainer(kind: type[torch.nn.Module], x: list[float], y: float) -> Trainer:
    rows = np.array(x, np.float32)[:, None]
    split = Split(rows, np.full_like(rows, y))
    task = Task("by hand", kind, lambda _: (split, split), error, lambda outputs, targets: {})  # type: ignore[arg-type, return-value]
    return TorchTrainer(task, ClientData(split, split), 0, "cpu")


@pytest.fixture
def play(rounds: Any) -> Any:
    """``play("fedper", "head", n, *overrides)``: shared numbers, and each client's [b, h] as it would use them."""

    def go(name: str, personal: str, n: int, *overrides: str) -> tuple[dict[str, float], list[list[float]]]:
        chosen = [f'strategy.personal=["{personal}.*"]'] if personal else []
        clients = [trainer(Product, [1.0] * 3, 3.0), trainer(Product, [1.0], -1.0)]
        played = rounds(clients, n, f"strategy.name={name}", "train.lr=0.5", *chosen, *overrides)
        used = [[float(p["body.w"]), float(p["head.w"])] for p in played.personal]
        return {name: float(a) for name, a in played.model.items()}, used

    return go


def test_fedper(play: Any) -> None:
    # A: e = -2, both gradients -2: b = h = 2. B: e = 2: b = h = 0. b: 1 + (3 * 1 - 1) / 4.
    assert play("fedper", "head", 1) == ({"body.w": 1.5}, [[1.5, 2.0], [1.5, 0.0]])


def test_lg_fedavg(play: Any) -> None:
    # The same, and it is the head that is shared.
    assert play("lg-fedavg", "body", 1) == ({"head.w": 1.5}, [[2.0, 1.5], [0.0, 1.5]])


def test_fedrep(play: Any) -> None:
    # A: h = 1 + 2/2 = 2; then e = -1, gradient of b -2: b = 2. B: h = 0; then the gradient of b is 0: b = 1.
    # b: 1 + (3 * 1 + 0) / 4.
    assert play("fedrep", "head", 1, "strategy.head_epochs=1") == ({"body.w": 1.75}, [[1.75, 2.0], [1.75, 0.0]])
    # A: h = 2, e = -1: h = 2.5; e = -0.5, gradient of b -1.25: b = 1.625. B: h = 0, e = 1: h = -0.5; e = 0.5,
    # gradient of b -0.25: b = 1.125. b: 1 + (3 * 0.625 + 0.125) / 4.
    assert play("fedrep", "head", 1, "strategy.head_epochs=2") == ({"body.w": 1.5}, [[1.5, 2.5], [1.5, -0.5]])


def test_fedbabu(play: Any) -> None:
    # A: b = 2, B: b = 0, under h = 1: b = 1.5. To be used, one pass of both from there.
    # A: e = -1.5, gradients -1.5 and -2.25. B: e = 2.5, gradients 2.5 and 3.75.
    assert play("fedbabu", "head", 1, "strategy.fine_tune_epochs=1") == (
        {"body.w": 1.5},
        [[2.25, 2.125], [0.25, -0.875]],
    )


def test_finetune(play: Any) -> None:
    # FedAvg: b = h = 1.5. A: e = -0.75, gradients -1.125. B: e = 3.25, gradients 4.875.
    assert play("finetune", "", 1, "strategy.fine_tune_epochs=1") == (
        {"body.w": 1.5, "head.w": 1.5},
        [[2.0625, 2.0625], [-0.9375, -0.9375]],
    )


def test_local(play: Any) -> None:
    # A: b = h = 2; then e = 1, gradients 2: b = h = 1. B: b = h = 0, and there it stays: gradients 0.
    assert play("local", "", 2) == ({}, [[1.0, 1.0], [0.0, 0.0]])


def test_fedbn(rounds: Any) -> None:
    # The output is w - 1 + bias on average: gradients of w and bias are that less y. A, y = 4, six examples: both move
    # by 0.25 * 4 = 1. B, y = -4, two examples: by -1. w: 1 + (6 - 2) / 8. Running means: a tenth of 2 and of -4.
    clients = [trainer(Normalised, [1.0, 3.0] * 3, 4.0), trainer(Normalised, [-5.0, -3.0], -4.0)]
    played = rounds(clients, 1, "strategy.name=fedbn", "train.lr=0.25", "train.batch_size=8")
    assert list(played.model) == ["body.w"]
    assert float(played.model["body.w"]) == pytest.approx(1.5)
    for own, bias, mean in zip(played.own, (1.0, -1.0), (0.2, -0.4), strict=True):
        assert list(own) == ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
        assert own["norm.bias"] == pytest.approx(bias)
        assert own["norm.running_mean"] == pytest.approx(mean)
