"""Does the file do what the module did? ONNX Runtime against torch, on real data.

A float file must agree with the torch module number by number; an int8 file cannot, so it must choose the same class on
a stated share of the examples. A file that does not is refused here, before any device has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np

from fedpress.errors import MissingExtra, TaskError
from fedpress.params import Array
from fedpress.task import Split, Task, accuracy

try:
    import onnxruntime
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Running an ONNX model", "ship") from error
try:
    import torch
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Checking an export against torch", "torch") from error

from fedpress.torch_model import tensor

#: Largest difference between a float file's outputs and torch's, over the largest output (or 1, if that is more).
TOLERANCE: Final = 1e-4
#: Smallest share of examples on which the int8 file must choose the class that the float module chooses.
AGREEMENT: Final = 0.9

_BATCH: Final = 256
_DTYPE_OF: Final[Mapping[str, Any]] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def check(task: Task, student: torch.nn.Module, float_file: bytes, int8_file: bytes, split: Split) -> dict[str, float]:
    """``student_accuracy``, ``int8_accuracy``, ``agreement`` and ``export_error`` on ``split``.

    Raises TaskError if the float file differs from ``student`` by more than TOLERANCE, or int8 agrees on less than
    AGREEMENT.
    """
    expected = predict(student, split.x)
    difference = same_outputs(expected, run(float_file, split.x))
    int8 = run(int8_file, split.x)
    agreement = float(np.mean(int8.argmax(-1) == expected.argmax(-1)))
    if agreement < AGREEMENT:
        raise TaskError(
            f"Expected the int8 student of task '{task.name}' to choose as the float one does on at least "
            f"{AGREEMENT:.0%} of {len(split)} examples, got {agreement:.1%}. A wider student(), or more of "
            f"ship.epochs, leaves more room for rounding."
        )
    return {
        "student_accuracy": measured(task, expected, split),
        "int8_accuracy": measured(task, int8, split),
        "agreement": agreement,
        "export_error": difference,
    }


def same_outputs(expected: Array, got: Array) -> float:
    """The largest difference, over the largest expected output or 1. Raises TaskError beyond TOLERANCE."""
    if got.shape != expected.shape:
        raise TaskError(f"The ONNX file gives outputs {list(got.shape)}, the module {list(expected.shape)}.")
    difference = float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not difference <= TOLERANCE:  # NaN included
        raise TaskError(
            f"The ONNX file disagrees with the torch module it should hold: outputs differ by {difference:.2g} of the "
            f"largest, at most {TOLERANCE:.0e} is rounding. Its weights changed after the export, or an operator of "
            f"the model does not survive it."
        )
    return difference


def run(model: bytes, inputs: Array) -> Array:
    """Outputs of an ONNX file on ``inputs[n, ...]`` in ONNX Runtime, on the CPU, one thread.

    The first example goes alone, as on a device: a file that lost its free batch size fails here.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.ascontiguousarray(inputs, _DTYPE_OF[session.get_inputs()[0].type])
    cuts = [0, 1, *range(_BATCH, len(x), _BATCH), len(x)]
    parts = [session.run(["output"], {"input": x[a:b]})[0] for a, b in pairwise(cuts) if b > a]
    return np.concatenate(parts)


@torch.no_grad()
def predict(module: torch.nn.Module, inputs: Array) -> Array:
    """Outputs of a torch module on ``inputs[n, ...]``, in evaluation mode."""
    module.eval()
    parts = [module(tensor(inputs[at : at + _BATCH])).numpy() for at in range(0, len(inputs), _BATCH)]
    return np.concatenate(parts)


def measured(task: Task, outputs: Array, split: Split) -> float:
    """The accuracy of outputs: the task's own where its metric has one, else the share of largest outputs."""
    values: Mapping[str, float] = task.metric(outputs, split.y)
    return float(values["accuracy"] if "accuracy" in values else accuracy(outputs, split.y)["accuracy"])
