"""Knowledge distillation: a small student learns a teacher's outputs, from inputs that nobody labelled.

The loss is the divergence of the student's softened classes from the teacher's, times the temperature squared so that
its gradients keep their scale (Hinton, Vinyals, Dean 2015, section 2); there is no hard-label term because there are no
labels. The inputs are few, so between any two of them a new one is drawn on the line (mixup: Zhang et al. 2018, with
the weight uniform in [0, 1]), and the *teacher is asked* what it thinks of it: Beyer et al. 2022 ("a good teacher is
patient and consistent") found that, with many passes, to be what makes a small set go far. Token inputs cannot be mixed.

Adam, the learning rate falling to zero along a cosine. The same seed gives the same student on the same CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra, TaskError
from fedpress.params import Array

try:
    import torch
    from torch.nn import functional
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Distillation", "torch") from error

from fedpress.torch_model import tensor

#: Called after each epoch, with the number of epochs done and their last mean loss.
Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Distillation:
    """How to distil. ``mixing`` draws inputs between pairs; it is left out where inputs are integers."""

    temperature: float = 3.0
    epochs: int = 60
    lr: float = 3e-3
    batch_size: int = 32
    mixing: bool = True


def distil(
    teacher: torch.nn.Module,
    student: torch.nn.Module,
    inputs: Array,
    how: Distillation,
    seed: int,
    progress: Progress | None = None,
) -> torch.nn.Module:
    """``student``, trained in place on ``inputs[n, ...]`` and returned in evaluation mode, on the CPU.

    Both modules give logits over classes on their last axis, of the same shape; TaskError otherwise.
    """
    teacher.eval()
    _compatible(teacher, student, inputs)
    rng = Stream.of(seed, "distil")
    mixing = how.mixing and np.issubdtype(inputs.dtype, np.floating)
    optimizer = torch.optim.Adam(student.parameters(), lr=how.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=how.epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed())  # dropout, where a student has it
        student.train()
        for epoch in range(how.epochs):
            total = 0.0
            order, partners = _permutation(rng, len(inputs)), _permutation(rng, len(inputs))
            for at in range(0, len(inputs), how.batch_size):
                batch = inputs[order[at : at + how.batch_size]]
                if mixing:
                    batch = _between(batch, inputs[partners[at : at + how.batch_size]], rng)
                loss = _step(teacher, student, tensor(batch), optimizer, how.temperature)
                total += loss * len(batch)
            schedule.step()
            if progress is not None:
                progress(epoch + 1, total / len(inputs))
    return student.eval()


def _step(
    teacher: torch.nn.Module,
    student: torch.nn.Module,
    x: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    temperature: float,
) -> float:
    with torch.no_grad():
        target = functional.log_softmax(teacher(x).flatten(0, -2) / temperature, dim=-1)
    guess = functional.log_softmax(student(x).flatten(0, -2) / temperature, dim=-1)
    loss = temperature**2 * functional.kl_div(guess, target, reduction="batchmean", log_target=True)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _between(a: Array, b: Array, rng: Stream) -> Array:
    weight = rng.uniform(len(a)).reshape(-1, *[1] * (a.ndim - 1))
    return weight * a + (1 - weight) * b


def _permutation(rng: Stream, n: int) -> Array:
    return np.argsort(rng.u64(n), kind="stable")


@torch.no_grad()
def _compatible(teacher: torch.nn.Module, student: torch.nn.Module, inputs: Array) -> None:
    was_training = student.training
    student.eval()
    x = tensor(inputs[:2])
    wanted, given = tuple(teacher(x).shape), tuple(student(x).shape)
    student.train(was_training)
    if len(wanted) < 2 or wanted[-1] < 2:
        raise TaskError(f"Expected model() to give logits[n, ..., classes] to distil from, got {list(wanted)}.")
    if given != wanted:
        raise TaskError(f"Expected student() to give outputs like model()'s, {list(wanted)}, got {list(given)}.")
