"""The three ways to clip give the sum that the definition gives, example by example, whatever the layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus.layers import DPLSTM
from torch import nn

from fedpress import torch_model
from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.privacy import local
from fedpress.privacy.clipping import Objective
from fedpress.privacy.dpsgd import CLIPPINGS, Mechanism
from fedpress.privacy.noise import Noise
from fedpress.simulations.tasks import networks
from fedpress.task import Task

N, CLIP, MEAN = 7, 0.3, 5.0


class Odd(nn.Module):
    """A bare scalar, a tensor that is not used, and layers below."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.unused = nn.Parameter(torch.ones(3))
        self.layers = networks.mlp(4, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x) * self.scale
        return out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = DPLSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.memory(x)[0][:, -1])
        return out


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.tied(torch.tanh(self.tied(x))))
        return out


def floats(*shape: int) -> torch.Tensor:
    return torch.from_numpy(4 * Stream(3).uniform(N * math.prod(shape)).reshape(N, *shape) - 2)


def squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss of a user's own."""
    return ((outputs.softmax(1)[:, 0] - targets) ** 2).mean()


WORDS = torch.arange(N * 6).reshape(N, 6) % 5
MODULES: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "perceptron": (lambda: networks.mlp(4, 5, 3), floats(4)),
    "convolutions": (lambda: networks.cnn((2, 3), 5, 3), floats(1, 28, 28)),
    "groups": (lambda: networks.signal_cnn((2, 4, 8), 3), floats(2, 12)),
    "words": (lambda: networks.next_symbol(5, 4, 2), WORDS),
    "odd": (Odd, floats(4)),
    "recurrent": (Recurrent, floats(6, 4)),
}


def setting(name: str, loss: Any = None) -> tuple[nn.Module, Objective]:
    make, x = MODULES[name]
    task = Task(name, make, lambda _: None, loss)  # type: ignore[arg-type, return-value]
    module = torch_model.build(task, 1)
    y = x if name == "words" else torch.arange(N) % 3
    return module, Objective(
        lambda m, rows: torch_model.batch_loss(task, m(x[rows]), y[rows]),
        lambda m, rows: torch_model.each_loss(task, m(x[rows]), y[rows]),
    )


def mechanism(clipping: str, noise: float = 1e-12) -> Mechanism:
    return Mechanism(noise, CLIP, clipping, MEAN / N, N, Noise.seeded(Stream(1)))


def by_hand(module: nn.Module, objective: Objective, rows: torch.Tensor, per_layer: bool) -> list[torch.Tensor]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        module.zero_grad()
        objective.mean(module, row[None]).backward()  # type: ignore[no-untyped-call]
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        norms = [float(g.norm()) for g in gradient]
        flat = math.sqrt(sum(n**2 for n in norms))
        for summed, g, norm in zip(total, gradient, norms, strict=True):
            bound, length = (CLIP / math.sqrt(len(norms)), norm) if per_layer else (CLIP, flat)
            summed += g * min(1.0, bound / max(length, 1e-12))
    return [t / MEAN for t in total]


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("name", MODULES)
def test_the_sum_is_that_of_gradients_clipped_one_by_one(name: str, clipping: str) -> None:
    module, objective = setting(name)
    rows = torch.tensor([0, 2, 3, 6])
    expected = by_hand(module, objective, rows, clipping == "per-layer")
    local.gradient(module, objective, rows, mechanism(clipping))
    found = [p.grad for p in module.parameters()]
    assert any(float(e.abs().max()) > 1e-3 for e in expected)
    for e, f in zip(expected, found, strict=True):
        assert f is not None
        torch.testing.assert_close(f, e, atol=2e-6, rtol=1e-4)
    assert not any(hasattr(p, "grad_sample") or hasattr(p, "_norm_sample") for p in module.parameters())


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_no_example_moves_the_sum_by_more_than_the_bound(clipping: str) -> None:
    module, objective = setting("odd")
    everyone = torch.arange(N)

    def total(rows: torch.Tensor) -> torch.Tensor:
        local.gradient(module, objective, rows, mechanism(clipping))
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]) * MEAN

    whole = total(everyone)
    moved = [float((whole - total(everyone[everyone != i])).norm()) for i in range(N)]
    assert max(moved) <= CLIP * 1.0001
    assert max(moved) > CLIP / 3


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_draw_of_nobody_is_noise_alone_of_the_scale_it_must_have(clipping: str) -> None:
    module = nn.Linear(2000, 5)
    objective = Objective(lambda m, rows: m(torch.zeros(1)), lambda m, rows: m(torch.zeros(1)))
    local.gradient(module, objective, torch.tensor([], dtype=torch.int64), mechanism(clipping, noise=2.0))
    assert module.weight.grad is not None
    assert float(module.weight.grad.std()) == pytest.approx(2.0 * CLIP / MEAN, rel=0.03)


def test_ghost_clipping_takes_a_users_own_loss_example_by_example() -> None:
    found = []
    for clipping in ("flat", "ghost"):
        module, objective = setting("perceptron", squares)
        local.gradient(module, objective, torch.arange(N), mechanism(clipping))
        found.append([p.grad for p in module.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)


def test_only_what_is_trained_counts_for_the_norm() -> None:
    for clipping in CLIPPINGS:
        module, objective = setting("perceptron")
        next(module.parameters()).requires_grad_(False)
        expected = by_hand(module, objective, torch.arange(N), clipping == "per-layer")
        module.zero_grad()
        local.gradient(module, objective, torch.arange(N), mechanism(clipping))
        frozen, *trained = module.parameters()
        assert frozen.grad is None
        for e, p in zip(expected, trained, strict=True):
            torch.testing.assert_close(p.grad, e, atol=2e-6, rtol=1e-4)


def four(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(len(x), 1, 1, 4)


@pytest.mark.parametrize(
    ("module", "x", "layer"),
    [
        (Twice, floats(4), r"Layer 'tied' \(Linear\)"),
        (
            lambda: nn.Sequential(nn.Unflatten(1, (1, 1, 4)), nn.Linear(4, 3), nn.Flatten()),
            floats(4),
            r"'1' \(Linear\)",
        ),
        (
            lambda: nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Flatten()),
            torch.zeros(N, 1, dtype=torch.int64),
            r"'0' \(Embedding\)",
        ),
    ],
    ids=["used twice", "four dimensions", "padding"],
)
def test_a_layer_without_ghost_norms_is_named_with_the_remedy(
    module: Callable[[], nn.Module], x: torch.Tensor, layer: str
) -> None:
    made, y = module(), torch.arange(N) % 3
    task = Task("small", module, lambda _: None)  # type: ignore[arg-type, return-value]
    objective = Objective(
        lambda m, rows: torch_model.batch_loss(task, m(x[rows]), y[rows]),
        lambda m, rows: torch_model.each_loss(task, m(x[rows]), y[rows]),
    )
    with pytest.raises(PrivacyError, match=rf"{layer}.*privacy\.clipping = 'flat'"):
        local.gradient(made, objective, torch.arange(N), mechanism("ghost"))
    assert not any(hasattr(m, "activations") for m in made.modules()), "it can be trained otherwise afterwards"
    made(x).sum().backward()


def test_ghost_norms_are_not_believed_but_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula that forgets the bias would let every example through at more than the bound."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping as Ghost

    right = Ghost.NORM_SAMPLERS[nn.Linear]

    def wrong(*args: Any) -> Any:
        return {p: 0.5 * norms for p, norms in right(*args).items()}

    monkeypatch.setitem(Ghost.NORM_SAMPLERS, nn.Linear, wrong)
    module, objective = setting("perceptron")
    with pytest.raises(PrivacyError, match=r"Layer 'body\.0'.*no ghost norms"):
        local.gradient(module, objective, torch.arange(N), mechanism("ghost"))


def test_more_noise_for_the_same_sum_and_the_source_is_ours() -> None:
    for clipping in CLIPPINGS:
        drawn = []
        for key in (1, 1, 2):
            module, objective = setting("perceptron")
            guard = Mechanism(1.0, CLIP, clipping, MEAN / N, N, Noise.seeded(Stream(key)))
            local.gradient(module, objective, torch.arange(N), guard)
            drawn.append(np.concatenate([p.grad.numpy().ravel() for p in module.parameters() if p.grad is not None]))
        assert np.array_equal(drawn[0], drawn[1])
        assert not np.array_equal(drawn[0], drawn[2])
