from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpress.compression.models.check import check, predict, run, same_outputs
from fedpress.compression.models.export import export
from fedpress.compression.models.quantise import quantise
from fedpress.errors import TaskError
from fedpress.task import Split, Task


def no_data(directory: Path) -> Split:
    raise NotImplementedError


@pytest.fixture(scope="module")
def small(files: dict[str, bytes], convolutional: tuple) -> bytes:
    return quantise(files["convolutional"], convolutional[1]).onnx


@pytest.fixture
def task(convolutional: tuple) -> Task:
    return Task("pictures", model=lambda: convolutional[0], data=no_data)


@pytest.fixture
def split(convolutional: tuple) -> Split:
    """Labels that the module gets right for every second example."""
    module, inputs = convolutional
    chosen = predict(module, inputs).argmax(1)
    return Split(inputs, np.where(np.arange(len(chosen)) % 2 == 0, chosen, (chosen + 1) % 10))


def test_a_true_export_passes_and_is_measured(
    task: Task, split: Split, files: dict[str, bytes], small: bytes, convolutional: tuple
) -> None:
    found = check(task, convolutional[0], files["convolutional"], small, split)
    assert found["student_accuracy"] == 0.5
    assert found["int8_accuracy"] == float(np.mean(run(small, split.x).argmax(1) == split.y))
    assert 0.9 <= found["agreement"] <= 1
    assert 0 < found["export_error"] < 1e-4


def test_weights_changed_after_the_export_are_caught(
    task: Task, split: Split, files: dict[str, bytes], small: bytes, convolutional: tuple
) -> None:
    module = copy.deepcopy(convolutional[0])
    with torch.no_grad():
        module.head.bias[3] += 0.01
    with pytest.raises(TaskError, match="disagrees with the torch module"):
        check(task, module, files["convolutional"], small, split)


def test_an_int8_file_of_another_model_is_caught(
    task: Task, split: Split, files: dict[str, bytes], convolutional: tuple
) -> None:
    other = copy.deepcopy(convolutional[0])
    with torch.no_grad():
        other.head.weight.neg_()
    wrong = quantise(export(other, split.x, {}), split.x).onnx
    with pytest.raises(TaskError, match=r"at least 90% of 64 examples, got \d"):
        check(task, convolutional[0], files["convolutional"], wrong, split)


def test_nan_and_other_shapes_are_no_agreement() -> None:
    good = np.zeros((3, 2), np.float32)
    assert same_outputs(good, good) == 0
    with pytest.raises(TaskError, match="disagrees"):
        same_outputs(good, np.full((3, 2), np.nan, np.float32))
    with pytest.raises(TaskError, match=r"\[3, 3\]"):
        same_outputs(good, np.zeros((3, 3), np.float32))


def test_the_tasks_own_accuracy_is_the_one_measured(
    split: Split, files: dict[str, bytes], small: bytes, convolutional: tuple
) -> None:
    def metric(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"accuracy": 0.125}

    task = Task("pictures", model=lambda: convolutional[0], data=no_data, metric=metric)
    assert check(task, convolutional[0], files["convolutional"], small, split)["student_accuracy"] == 0.125
