from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.compression.stream import Stream
from fedpress.errors import BudgetSpent, PrivacyError
from fedpress.params import content_hash
from fedpress.privacy.accounting import Steps, epsilon, extended
from fedpress.privacy.dpsgd import plan_steps
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData, Split, Task

PRIVACY = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5)


def training(**changes: Any) -> pb.Training:
    return pb.Training(**{"epochs": 1, "batch_size": 8, "optimizer": "sgd", "lr": 1.0, **changes})


def privacy(**changes: Any) -> pb.LocalPrivacy:
    made = pb.LocalPrivacy()
    made.CopyFrom(PRIVACY)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def split(n: int, classes: int = 3) -> Split:
    x = np.asarray(Stream(5).uniform(n * 4)).reshape(n, 4)
    return Split(x, np.arange(n) % classes)


def trainer(module: Callable[[], torch.nn.Module], n: int = 24, secret: bool = False) -> TorchTrainer:
    task = Task("small", module, lambda _: None)  # type: ignore[arg-type, return-value]
    return TorchTrainer(task, ClientData(split(n), split(2)), 0, "cpu", secret_noise=secret)


def linear() -> torch.nn.Module:
    return torch.nn.Linear(4, 3)


def test_one_step_is_the_noisy_mean_of_clipped_gradients() -> None:
    """Against the definition, example by example: sum of g / max(1, |g| / C), plus noise, over the expected batch."""
    made, n, clip = trainer(linear, 24), 24, 0.3
    model = made.initial(0)
    rng, said = Stream(3), privacy(clip_norm=clip, noise_multiplier=1e-9)
    trained = made.train(model, training(max_steps=1), rng, said)

    again = Stream(3)
    again.seed()  # what the trainer draws for torch first
    rate = 1 / 3
    chosen = (Noise.seeded(again).uniform(n) < rate).nonzero()[0]
    assert 0 < len(chosen) < n
    total = {name: np.zeros_like(array) for name, array in model.items()}
    for i in chosen:
        module = linear()
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(torch.from_numpy(model[name]))
        data = split(n)
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(data.x[i : i + 1])), torch.tensor([data.y[i]]))
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        for name, g in grads.items():
            total[name] += g / max(1.0, norm / clip)
    for name, array in model.items():
        assert trained.tensors[name] == pytest.approx(array - total[name] / (rate * n), abs=1e-5)
    assert trained.spent == Steps(1e-9, rate, 1)


def test_the_noise_has_the_scale_it_must_have() -> None:
    """With zero inputs the weights' gradients are zero: what moves them is noise of std sigma * C / expected batch."""
    wide = Task("wide", lambda: torch.nn.Linear(2000, 5, bias=False), lambda _: None)  # type: ignore[arg-type, return-value]
    nothing = Split(np.zeros((16, 2000), np.float32), np.arange(16) % 5)
    made = TorchTrainer(wide, ClientData(nothing, nothing), 0, "cpu")
    model = made.initial(0)
    after = made.train(model, training(max_steps=1), Stream(1), privacy(noise_multiplier=2.0, clip_norm=0.5))
    moved = after.tensors["weight"] - model["weight"]
    assert moved.std() == pytest.approx(2.0 * 0.5 / 8, rel=0.03)
    assert moved.mean() == pytest.approx(0.0, abs=0.01)


def test_empty_draws_are_steps_too() -> None:
    made = trainer(linear, n=2)
    trained = made.train(made.initial(0), training(epochs=30, batch_size=1, lr=0.1), Stream(1), PRIVACY)
    assert trained.steps == 60
    assert trained.spent == Steps(1.0, 0.5, 60)
    assert all(np.isfinite(a).all() for a in trained.tensors.values())
    assert content_hash(trained.tensors) != content_hash(made.initial(0))


def test_seeded_noise_repeats_and_secret_noise_does_not() -> None:
    def once(secret: bool) -> str:
        made = trainer(linear, secret=secret)
        return content_hash(made.train(made.initial(0), training(), Stream(1), PRIVACY).tensors)

    assert once(False) == once(False)
    assert once(True) != once(True)


def test_private_and_plain_rounds_may_alternate_on_one_trainer() -> None:
    made, fresh = trainer(linear), trainer(linear)
    made.train(made.initial(0), training(), Stream(1), PRIVACY)
    plain = made.train(made.initial(0), training(), Stream(2))
    assert content_hash(plain.tensors) == content_hash(fresh.train(fresh.initial(0), training(), Stream(2)).tensors)


def test_a_budget_is_refused_before_any_training() -> None:
    made, said = trainer(linear), training(epochs=2)
    spend = plan_steps(24, said, PRIVACY)
    assert spend == Steps(1.0, 1 / 3, 6)
    twice = epsilon(extended((spend,), spend), 1e-5)
    budget = privacy(max_epsilon=twice * 1.0001)
    first = made.train(made.initial(0), said, Stream(1), budget, ())
    assert first.spent == spend
    made.train(made.initial(0), said, Stream(2), budget, (spend,))
    with pytest.raises(BudgetSpent):
        made.train(made.initial(0), said, Stream(3), budget, (spend, spend))


def test_it_learns_digits_with_noise() -> None:
    task = load_task("digits")
    everything = task.data(Path())
    made = TorchTrainer(task, ClientData(everything.train, everything.test), 0, "cpu", secret_noise=False)
    said = training(epochs=4, batch_size=64, lr=0.5)
    trained = made.train(made.initial(0), said, Stream(1), privacy(noise_multiplier=0.7))
    assert made.evaluate(trained.tensors)[0]["accuracy"] > 0.6
    assert trained.spent is not None
    assert 1 < epsilon((trained.spent,), 1e-5) < 10


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.nn.LSTM(4, 3)


class Counting(torch.nn.Module):
    """Carries a running mean out in a buffer, as batch normalisation would."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.mean += x.mean(0)
        return x


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)),
            r"Layer '1' \(BatchNorm1d\) .* use GroupNorm or LayerNorm",
        ),
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3, affine=False)),
            r"Layer '1' \(BatchNorm1d\)",
        ),
        (Recurrent, r"Layer 'memory' \(LSTM\) .* use opacus\.layers\.DPLSTM"),
        (lambda: torch.nn.Sequential(Counting(), torch.nn.Linear(4, 3)), r"Buffer '0\.mean' changed in training"),
    ],
)
def test_a_layer_that_would_leak_is_named_with_a_remedy(module: Callable[[], torch.nn.Module], told: str) -> None:
    made = trainer(module)
    with pytest.raises(PrivacyError, match=told):
        made.train(made.initial(0), training(), Stream(1), PRIVACY)


@pytest.mark.parametrize("bad", [{"noise_multiplier": 0.0}, {"clip_norm": float("nan")}, {"delta": 1.0}])
def test_parameters_that_promise_nothing_are_refused(bad: dict[str, float]) -> None:
    made = trainer(linear)
    with pytest.raises(PrivacyError, match="from the server"):
        made.train(made.initial(0), training(), Stream(1), privacy(**bad))
