"""The end of a run: a model of the fleet becomes a small file for devices. Distil, export, quantise, check.

**What is measured on what.** The server has no training data, only its own held-out set. One half of it, drawn by the
seed, is used *without its labels*: the student learns the teacher's outputs there, and int8 is calibrated there. The
other half is seen by neither; every accuracy and agreement in the result is measured on it. The teacher's accuracy on
that half therefore differs a little from the run's own, which is of the whole set. A teacher that was chosen
as the best of several on this set (a run's best checkpoint) brings that advantage with it, and its student may too.

What comes out is one ONNX file, which a device runs with onnxruntime alone. Its metadata say where it is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.errors import DataError, MissingExtra, TaskError
from fedpress.params import Spec, Tensors, content_hash, ordered
from fedpress.sections import Ship
from fedpress.task import Split, Task

try:
    import torch
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Shipping a model", "torch") from error

from fedpress.compression.models.check import check, measured, predict
from fedpress.compression.models.distil import Distillation, Progress, distil
from fedpress.compression.models.export import export, stamp
from fedpress.compression.models.quantise import Method, quantise
from fedpress.torch_model import build, load, seeded, spec_of

#: Held-out examples without which neither half says much, and inputs that are enough to calibrate int8.
FEWEST: Final = 20
_CALIBRATION: Final = 256


@dataclass(frozen=True)
class Shipped:
    """A model for devices. ``metrics``: accuracies, ``agreement``, sizes in bytes; all of the unseen half."""

    onnx: bytes
    metrics: dict[str, float]
    method: Method
    metadata: dict[str, str]


def ship(
    task: Task, teacher: Tensors, test: Split, seed: int, settings: Ship, progress: Progress | None = None
) -> Shipped:
    """The task's ``student()``, distilled from ``teacher`` (the full model), int8, checked, as ONNX bytes.

    ``progress`` is called after each epoch. Raises TaskError without a student(), or where one cannot be distilled,
    exported or quantised; SpecError if ``teacher`` is not this task's model; DataError for too small a ``test``.
    """
    student = _student(task, seed)
    module = build(task, seed)
    teacher = ordered(teacher, spec_of(module))
    load(module, teacher)
    transfer, unseen = halves(test, seed)
    how = Distillation(temperature=settings.temperature, epochs=settings.epochs, lr=settings.lr)
    distil(module, student, transfer.x, how, seed, progress)

    metadata = {
        "fedpress.task": task.name,
        "fedpress.source": content_hash(teacher),
        "fedpress.device_class": settings.device_class,
        "fedpress.input": f"{'float32' if np.issubdtype(test.x.dtype, np.floating) else 'int64'}[n"
        + "".join(f",{d}" for d in test.x.shape[1:])
        + "]",
    }
    float_file = export(student, transfer.x, metadata)
    int8_file, method = quantise(float_file, transfer.x[:_CALIBRATION])
    found = check(task, student, float_file, int8_file, unseen)
    metadata |= {"fedpress.quantisation": method, "fedpress.accuracy": f"{found['int8_accuracy']:.4f}"}
    onnx = stamp(int8_file, metadata)
    metrics = {
        "teacher_accuracy": measured(task, predict(module, unseen.x), unseen),
        **found,
        "teacher_bytes": float(Spec.of(teacher).nbytes),
        "student_parameters": float(sum(p.numel() for p in student.parameters())),
        "bytes": float(len(onnx)),
        "transfer_examples": float(len(transfer)),
        "measured_examples": float(len(unseen)),
    }
    return Shipped(onnx, metrics, method, metadata)


def halves(test: Split, seed: int) -> tuple[Split, Split]:
    """The transfer half, whose labels are not used, and the half to measure on. Raises DataError below FEWEST."""
    if len(test) < FEWEST:
        raise DataError(f"Expected at least {FEWEST} held-out examples on the server to ship with, got {len(test)}.")
    order = np.argsort(Stream.of(seed, "ship").u64(len(test)), kind="stable")
    return test.take(order[: len(test) // 2]), test.take(order[len(test) // 2 :])


def _student(task: Task, seed: int) -> torch.nn.Module:
    if task.student is None:
        raise TaskError(
            f"Task '{task.name}' has no student(): add a function student() that returns the smaller torch.nn.Module "
            f"to ship, with the same inputs and outputs as model()."
        )
    with seeded(seed):
        student = task.student()
    if not isinstance(student, torch.nn.Module):
        raise TaskError(f"Expected student() of task '{task.name}' to return a torch.nn.Module, got {student!r}.")
    return student
