"""A torch module seen as named float32 tensors: seeded construction, loading, dumping, evaluation. Needs torch.

What travels is the module's floating-point state (parameters and buffers such as BatchNorm's running statistics).
Integers and booleans (permutations, masks, counters) do not: each end has those that the seed draws. They must not
change in training, but for BatchNorm's ``num_batches_tracked``, which counts within one training. Complex numbers are
refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from fedpress.errors import MissingExtra, TaskError
from fedpress.params import Array, Kind, Spec, Tensors
from fedpress.task import Split, Task

try:
    import torch
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Training and evaluation with torch", "torch") from error

#: BatchNorm's count of the batches it has seen, in its averages only where ``momentum`` is None.
_COUNTER: Final = "num_batches_tracked"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch (on the CPU), NumPy and Python start from ``seed``; afterwards they are as they were."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002 - the one that a task's model() draws from
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)


def build(task: Task, seed: int) -> torch.nn.Module:
    """``task.model()`` under ``seed``; the caller's random states are left as they were. Raises TaskError, also for
    state that is no real tensor, by its name."""
    with seeded(seed):
        module = task.model()
    if not isinstance(module, torch.nn.Module):
        raise TaskError(
            f"Expected model() of task '{task.name}' to return a torch.nn.Module, got {type(module).__name__}."
        )
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TaskError(
                f"Expected tensors as the state of task '{task.name}', got {type(value).__name__} in '{name}': "
                "register it as a buffer, or leave it out of the state."
            )
        if value.is_complex():
            raise TaskError(
                f"Expected real numbers as the state of task '{task.name}', got {_dtype(value)} in '{name}': store its "
                "real and imaginary parts as one real tensor (torch.view_as_real), and join them in forward() "
                "(torch.view_as_complex)."
            )
    return module


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def dump(module: torch.nn.Module) -> dict[str, Array]:
    """Copies of the module's floating-point state as float32 arrays, in the module's order."""
    return {
        name: np.array(value.detach().to("cpu", torch.float32).contiguous().numpy())
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }


def unsent(module: torch.nn.Module) -> dict[str, Array]:
    """Copies of the rest of the module's state, integers and booleans: with ``dump``, all that ``state_dict`` has."""
    return {
        name: np.array(value.detach().cpu().numpy())
        for name, value in module.state_dict().items()
        if not value.is_floating_point()
    }


def left_behind(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all that ``load`` does not set: integers, booleans, and buffers that are not in the state at all."""
    sent = {name for name, value in module.state_dict().items() if value.is_floating_point()}
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach().clone() for name, value in tensors if name not in sent}


def put_back(module: torch.nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
    """Set what ``left_behind`` gave. A buffer that has another shape by now is replaced."""
    now = dict((*module.named_parameters(), *module.named_buffers()))
    with torch.no_grad():
        for name, value in kept.items():
            if name in now and now[name].shape == value.shape:
                now[name].copy_(value)
            else:
                owner, _, own = name.rpartition(".")
                setattr(module.get_submodule(owner), own, value.clone())


@torch.no_grad()
def moved_by_training(task: Task, module: torch.nn.Module, x: Array) -> tuple[str, ...]:
    """The names of buffers in the module's state that one pass over ``x[n, ...]`` in training mode changes, counters of
    batches aside. The module is used up. Raises TaskError where it fails."""
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        with seeded(0):
            module(tensor(x))
    except Exception as error:  # whatever a user's model raises is the user's to see
        raise TaskError(
            f"The model of task '{task.name}' failed on {len(x)} of its examples, {list(x.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return tuple(
        name
        for name, value in module.state_dict().items()
        if not value.equal(before[name]) and name.rpartition(".")[2] != _COUNTER
    )


def load(module: torch.nn.Module, tensors: Tensors) -> None:
    """Copy ``tensors`` into the module. Names the module lacks raise TaskError; names not given stay as they are."""
    state = module.state_dict()
    with torch.no_grad():
        for name, array in tensors.items():
            if name not in state or tuple(state[name].shape) != tuple(array.shape):
                raise TaskError(f"Tensor '{name}' {list(array.shape)} does not fit the model of this task.")
            state[name].copy_(torch.from_numpy(np.require(array, requirements=["C", "W"])))


def spec_of(module: torch.nn.Module) -> Spec:
    """The spec of what ``dump`` gives: parameters are weights, or frozen if they ask for no gradient; buffers are
    statistics."""
    kinds: dict[str, Kind] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.nn.Parameter):
            kinds[name] = "statistic"
        elif not value.requires_grad:
            kinds[name] = "frozen"
    return Spec.of(dump(module), kinds)


def batch_loss(task: Task, outputs: Any, targets: Any) -> Any:
    """The task's loss; by default cross entropy over the last axis, mean over rows and positions."""
    if task.loss is not None:
        return task.loss(outputs, targets)
    return torch.nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))


def each_loss(task: Task, outputs: Any, targets: Any) -> Any:
    """The loss of every example, [n]: what ``batch_loss`` is the mean of. Raises TaskError for outputs that do not have
    the examples first."""
    if not isinstance(outputs, torch.Tensor) or len(outputs) != len(targets):
        raise TaskError(f"Expected outputs[n, ...] from the model of task '{task.name}', one for each of n examples.")
    if task.loss is not None:
        return torch.stack([task.loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))])
    flat = outputs.reshape(-1, outputs.shape[-1])
    losses = torch.nn.functional.cross_entropy(flat, targets.reshape(-1), reduction="none")
    return losses.reshape(len(targets), -1).mean(1)


def tensor(array: Array, device: str | torch.device = "cpu") -> torch.Tensor:
    """An array as a torch tensor: floats as float32, integers as int64."""
    kind = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
    return torch.from_numpy(np.ascontiguousarray(array, dtype=kind)).to(device)


@torch.no_grad()
def evaluate(module: torch.nn.Module, task: Task, split: Split, batch_size: int = 512) -> dict[str, float]:
    """The task's metrics and ``loss``, means over the examples of ``split``. {} for an empty split."""
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    totals: dict[str, float] = {}
    for at in range(0, len(split), batch_size):
        x, y = split.x[at : at + batch_size], split.y[at : at + batch_size]
        outputs, targets = module(tensor(x, device)), tensor(y, device)
        values = {**task.metric(outputs.cpu().numpy(), y), "loss": float(batch_loss(task, outputs, targets))}
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(x)
    module.train(was_training)
    return {name: total / len(split) for name, total in totals.items()}
