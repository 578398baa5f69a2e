"""The built-in tasks, by name, and how any task is loaded.

    name          problem                                     natural clients
    digits        8x8 digits, bundled with scikit-learn       none
    mnist         28x28 digits                                none
    fashion-mnist 28x28 clothes                               none
    femnist       28x28 letters and digits, 62 classes        105 writers
    har           561 features of a phone on the waist        30 people
    har-inertial  the raw signal of the same, 128 x 9         30 people
    shakespeare   next character, windows of 80               141 speaking roles
    heart         13 clinical measurements, 2 classes         4 hospitals

A task's module is imported when it is asked for, torch when its model is.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fedpress.errors import TaskError, closest
from fedpress.task import Task, from_file, from_module

#: Names and the module of this package that keeps the contract of ``fedpress.task``.
MODULES: Final[Mapping[str, str]] = {
    "digits": "digits",
    "mnist": "mnist",
    "fashion-mnist": "fashion_mnist",
    "femnist": "femnist",
    "har": "har",
    "har-inertial": "har_inertial",
    "shakespeare": "shakespeare",
    "heart": "heart",
}


def names() -> tuple[str, ...]:
    """Names of the built-in tasks."""
    return tuple(MODULES)


def load_task(name: str) -> Task:
    """A built-in task by name (``_`` will do for ``-``), or a user's by the path of its ``.py``. Raises TaskError."""
    if name.endswith(".py"):
        return from_file(Path(name))
    known = name.lower().replace("_", "-")
    if known not in MODULES:
        raise TaskError(f"Expected a built-in task or the path of a task.py, got '{name}'. {closest(known, MODULES)}")
    return from_module(importlib.import_module(f"{__name__}.{MODULES[known]}"), known)
