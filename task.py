"""A user's problem: a model, data, a loss and a metric. The contract, and how a module that keeps it is loaded.

A task is a Python module with these names at its top level; only the first two are required:

    def model() -> torch.nn.Module                 built anew at each call; torch, NumPy, random are seeded before
    def data(directory: Path) -> Data              NumPy arrays; ((x_train, y_train), (x_test, y_test)) will do
    def loss(outputs, targets) -> scalar           torch tensors in, mean over the batch out; default: cross entropy
    def metric(outputs, targets) -> dict           NumPy arrays in, means over the batch out; default: accuracy
    def student() -> torch.nn.Module               a smaller model for ``fedpress ship``

On a simulated client ``data`` is split by the plan's partition. On a real device it returns what that device holds.
This module needs NumPy only: a device without torch can hold a Task.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from fedpress.errors import DataError, TaskError
from fedpress.params import Array

#: Numbers that are looked at together.
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class Split:
    """Examples ``x[n, ...]``, targets ``y[n, ...]``, and for natural partitions the owner's index ``owner[n]``."""

    x: Array
    y: Array
    owner: Array | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (self.owner is not None and len(self.owner) != len(self.x)):
            raise DataError(f"Expected as many targets and owners as examples, got {len(self.x)} and {len(self.y)}.")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Array) -> Split:
        """The examples at ``index`` (integers or a mask), in that order."""
        return Split(self.x[index], self.y[index], None if self.owner is None else self.owner[index])


@dataclass(frozen=True)
class Data:
    """A whole data set. ``owners`` names the natural clients that ``Split.owner`` counts."""

    train: Split
    test: Split
    owners: tuple[str, ...] = ()

    def check(self, name: str) -> None:
        """Raise DataError for NaN or infinity in an array of task ``name``, saying where."""
        for part, split in (("train", self.train), ("test", self.test)):
            for letter, array in (("x", split.x), ("y", split.y)):
                _check_finite(array, f"{letter}_{part} of task '{name}'")


@dataclass(frozen=True)
class ClientData:
    """What one client holds: ``train`` to learn from, ``held_out`` to report metrics on."""

    train: Split
    held_out: Split


def accuracy(outputs: Array, targets: Array) -> dict[str, float]:
    """Share of rows whose largest output (last axis) is the target; sequences count per position."""
    return {"accuracy": float(np.mean(outputs.argmax(-1) == targets))} if len(targets) else {}


@dataclass(frozen=True)
class Task:
    """A loaded task. ``loss`` None means cross entropy over the last axis of the outputs."""

    name: str
    model: Callable[[], Any]
    data: Callable[[Path], Data]
    loss: Callable[[Any, Any], Any] | None = None
    metric: Callable[[Array, Array], Mapping[str, float]] = accuracy
    student: Callable[[], Any] | None = None


def from_module(module: ModuleType, name: str) -> Task:
    """The Task a module describes. Raises TaskError naming what is missing."""
    missing = [need for need in ("model", "data") if not callable(getattr(module, need, None))]
    if missing:
        raise TaskError(
            f"Expected functions model() and data(directory) in task '{name}', missing: {', '.join(missing)}."
        )

    def data(directory: Path) -> Data:
        return _as_data(module.data(directory), name)

    task = Task(name=name, model=module.model, data=data)
    optional = {key: getattr(module, key) for key in ("loss", "metric", "student") if hasattr(module, key)}
    return replace(task, **optional)


def from_file(path: Path) -> Task:
    """Load a user's ``task.py``. Raises TaskError if it cannot be imported or misses its contract."""
    if not path.is_file():
        raise TaskError(f"Expected a task file, found none at '{path}'.")
    spec = importlib.util.spec_from_file_location(f"fedpress_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"Expected a Python file as a task, got '{path}'.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's module raises at import is the user's to see
        raise TaskError(f"Task '{path}' failed on import: {type(error).__name__}: {error}") from error
    return from_module(module, path.stem)


def _check_finite(array: Array, what: str) -> None:
    if not np.issubdtype(array.dtype, np.inexact):
        return
    count, first, rows = 0, -1, max(1, _BLOCK * len(array) // max(1, array.size))
    for at in range(0, len(array), rows):
        bad = ~np.isfinite(array[at : at + rows]).reshape(len(array[at : at + rows]), -1)
        if bad.any():
            count += int(bad.sum())
            first = at + int(bad.any(1).argmax()) if first < 0 else first
    if count:
        raise DataError(
            f"Expected finite numbers in {what}, got NaN or infinity {count} times, first in row {first} of "
            f"{len(array)}: leave such rows out in data(), or fill them in."
        )


def _as_data(value: Any, name: str) -> Data:
    if isinstance(value, Data):
        return value
    try:
        (x_train, y_train), (x_test, y_test) = value
    except (TypeError, ValueError) as error:
        raise TaskError(
            f"Expected data() of task '{name}' to return Data or ((x_train, y_train), (x_test, y_test)), "
            f"got {type(value).__name__}."
        ) from error
    return Data(Split(np.asarray(x_train), np.asarray(y_train)), Split(np.asarray(x_test), np.asarray(y_test)))
