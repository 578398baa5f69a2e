"""A torch module seen as named float32 tensors: seeded construction, loading, dumping, evaluation. Needs torch.

What travels is the module's floating-point state (parameters and buffers such as BatchNorm's running statistics).
Integer buffers (``num_batches_tracked``) stay where they are: they count local steps and mean nothing elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpress.errors import MissingExtra, TaskError
from fedpress.params import Array, Kind, Spec, Tensors
from fedpress.task import Split, Task

try:
    import torch
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Training and evaluation with torch", "torch") from error


def build(task: Task, seed: int) -> torch.nn.Module:
    """``task.model()`` under ``seed``; the caller's torch random state is left as it was. Raises TaskError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        module = task.model()
    if not isinstance(module, torch.nn.Module):
        raise TaskError(
            f"Expected model() of task '{task.name}' to return a torch.nn.Module, got {type(module).__name__}."
        )
    return module


def dump(module: torch.nn.Module) -> dict[str, Array]:
    """Copies of the module's floating-point state as float32 arrays, in the module's order."""
    return {
        name: np.array(value.detach().to("cpu", torch.float32).contiguous().numpy())
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }


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
