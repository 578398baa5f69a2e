from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedpress.compression.models.distil import Distillation, distil
from fedpress.errors import DataError, TaskError

QUICK = Distillation(epochs=4)


class Seeing(nn.Module):
    """A teacher that keeps the inputs it was asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[np.ndarray] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.numpy())
        return self.inner(x)


def linear(seed: int, inputs: int = 6, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(inputs, classes)


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 6), np.float32)


def test_a_student_comes_to_choose_as_its_teacher_and_says_how_far_it_is(inputs: np.ndarray) -> None:
    teacher, student, told = linear(0), linear(1), []
    fresh = torch.randn(500, 6, generator=torch.Generator().manual_seed(5))
    how = Distillation(epochs=12, lr=0.03)
    distil(teacher, student, inputs, how, seed=0, progress=lambda epoch, loss: told.append((epoch, loss)))
    assert (student(fresh).argmax(1) == teacher(fresh).argmax(1)).float().mean() > 0.97
    assert [epoch for epoch, _ in told] == list(range(1, 13))
    assert told[-1][1] < told[0][1] / 10


def test_the_same_seed_gives_the_same_student_and_leaves_torchs_own_state_alone(inputs: np.ndarray) -> None:
    def weights(seed: int) -> torch.Tensor:
        student = distil(linear(0), nn.Sequential(linear(1), nn.Dropout(0.1)), inputs, QUICK, seed)
        return student[0].weight.detach()

    torch.manual_seed(7)
    first = weights(3)
    before = torch.get_rng_state()
    torch.manual_seed(8)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))
    torch.manual_seed(7)
    linear(1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mixing", [True, False])
def test_mixing_asks_the_teacher_about_new_inputs(inputs: np.ndarray, mixing: bool) -> None:
    teacher = Seeing(linear(0))
    distil(teacher, linear(1), inputs, Distillation(epochs=1, mixing=mixing), seed=0)
    known = {row.tobytes() for row in inputs}
    new = [row.tobytes() not in known for row in np.concatenate(teacher.seen[1:])]
    assert np.mean(new) > 0.9 if mixing else not any(new)


def test_tokens_are_never_mixed() -> None:
    tokens = np.random.default_rng(0).integers(0, 9, (20, 4))
    teacher, student = (nn.Sequential(nn.Embedding(9, 5), linear(seed, 5)) for seed in (0, 1))
    seeing = Seeing(teacher)
    distil(seeing, student, tokens, Distillation(epochs=1), seed=0)
    known = {row.tobytes() for row in tokens}
    assert all(row.tobytes() in known for row in np.concatenate(seeing.seen))


def test_what_cannot_be_distilled_is_refused(inputs: np.ndarray) -> None:
    with pytest.raises(TaskError, match=r"student\(\).*\[2, 3\], got \[2, 4\]"):
        distil(linear(0), linear(1, classes=4), inputs, QUICK, 0)
    with pytest.raises(TaskError, match="logits"):
        distil(linear(0, classes=1), linear(1, classes=1), inputs, QUICK, 0)
    with pytest.raises(DataError, match="none"):
        distil(linear(0), linear(1), inputs[:0], QUICK, 0)
