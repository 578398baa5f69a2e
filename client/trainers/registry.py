"""The trainers by name. Their modules are imported when one is made, so that a device without torch can list them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from fedpress.client.trainers.trainer import Trainer
from fedpress.errors import MissingExtra, PlanError, closest
from fedpress.task import ClientData, Task


@dataclass(frozen=True)
class Setting:
    """What a trainer is made for: a task, one client's data, and the machine. See ``TorchTrainer`` for the rest."""

    task: Task
    data: ClientData
    seed: int
    device: str
    threads: int
    secret_noise: bool


def _torch(setting: Setting) -> Trainer:
    from fedpress.client.trainers.torch_trainer import TorchTrainer

    return TorchTrainer(setting.task, setting.data, setting.seed, setting.device, setting.threads, setting.secret_noise)


def _numpy(setting: Setting) -> Trainer:
    """NumPy's, on a task's model, which its torch module draws. ``NumpyTrainer`` itself needs a function that draws."""
    from fedpress.client.trainers.numpy_trainer import NumpyTrainer
    from fedpress.torch_model import build, dump, spec_of

    if setting.task.loss is not None:
        raise PlanError("Expected a task without a loss of its own: the trainer 'numpy' has cross entropy only.")
    for name, kind in spec_of(build(setting.task, setting.seed)).kinds.items():
        raise PlanError(
            f"Expected parameters to train alone, got '{name}' ({kind}): the trainer 'numpy' trains whatever there is "
            "(train.trainer)."
        )
    return NumpyTrainer(lambda seed: dump(build(setting.task, seed)), setting.data, setting.seed, setting.secret_noise)


def _idle(setting: Setting) -> Trainer:
    """Idle on a task's model, whose shapes come from its torch module. ``IdleTrainer`` itself needs a Spec only."""
    from fedpress.client.trainers.idle import IdleTrainer
    from fedpress.torch_model import build, spec_of

    return IdleTrainer(spec_of(build(setting.task, setting.seed)), examples=max(1, len(setting.data.train)))


#: How each trainer is made, and the package it cannot run without.
TRAINERS: Final[Mapping[str, tuple[Callable[[Setting], Trainer], str]]] = {
    "torch": (_torch, "torch"),
    "numpy": (_numpy, "numpy"),
    "idle": (_idle, "numpy"),
}


def make(
    name: str,
    task: Task,
    data: ClientData,
    seed: int,
    device: str = "auto",
    threads: int = 1,
    secret_noise: bool = True,
) -> Trainer:
    """The named trainer for a task and one client's data. Raises PlanError for an unknown name, MissingExtra."""
    if name not in TRAINERS:
        raise PlanError(f"Expected a known trainer, got '{name}'. {closest(name, TRAINERS)} (train.trainer)")
    build, needs = TRAINERS[name]
    if find_spec(needs) is None:
        raise MissingExtra(f"The trainer '{name}'", needs)
    return build(Setting(task, data, seed, device, threads, secret_noise))


def available() -> tuple[str, ...]:
    """Names of the trainers this machine can run."""
    return tuple(name for name, (_, needs) in TRAINERS.items() if find_spec(needs) is not None)
