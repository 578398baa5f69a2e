from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpress.errors import DataError, TaskError
from fedpress.task import Split, accuracy, from_file


def written(directory: Path, text: str) -> Path:
    path = directory / "mine.py"
    path.write_text(text)
    return path


def test_what_a_task_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="missing: data"):
        from_file(written(tmp_path, "def model(): ..."))
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        from_file(written(tmp_path, "1 / 0"))
    with pytest.raises(TaskError, match="found none"):
        from_file(tmp_path / "none.py")
    task = from_file(written(tmp_path, "def model(): ...\ndef data(directory): return 7"))
    with pytest.raises(TaskError, match="got int"):
        task.data(tmp_path)


def test_a_task_in_two_functions_will_do(tmp_path: Path) -> None:
    task = from_file(
        written(tmp_path, "def model(): ...\ndef data(directory): return ([[1.0]], [0]), ([[2.0], [3.0]], [0, 1])")
    )
    data = task.data(tmp_path)
    assert (task.name, len(data.train), len(data.test)) == ("mine", 1, 2)
    assert task.metric is accuracy
    assert task.loss is task.student is None


def test_examples_and_targets_must_be_as_many() -> None:
    with pytest.raises(DataError):
        Split(np.zeros(3), np.zeros(2))


def test_accuracy_counts_positions_of_sequences() -> None:
    outputs = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    assert accuracy(outputs, np.array([[0, 0]])) == {"accuracy": 0.5}
