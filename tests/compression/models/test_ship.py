"""The whole path on real digits: a trained teacher in, a file that runs without torch out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fedpress.compression.models.check import measured, run
from fedpress.compression.models.ship import Shipped, halves, ship
from fedpress.errors import DataError, SpecError, TaskError
from fedpress.params import Tensors, content_hash
from fedpress.sections import Ship
from fedpress.simulations.tasks import load_task
from fedpress.task import Split, Task
from fedpress.torch_model import batch_loss, build, dump, tensor

pytest.importorskip("sklearn")
SEED = 1
BRIEF = Ship(epochs=4)  # type: ignore[call-arg]


class Run(NamedTuple):
    task: Task
    teacher: Tensors
    test: Split


@pytest.fixture(scope="module")
def trained() -> Run:
    """The digits task and a teacher of a few epochs."""
    task = load_task("digits")
    data = task.data(Path())
    module, rng = build(task, SEED), np.random.default_rng(SEED)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(12):
        order = rng.permutation(len(data.train))
        for at in range(0, len(order), 64):
            rows = order[at : at + 64]
            optimizer.zero_grad()
            batch_loss(task, module(tensor(data.train.x[rows])), tensor(data.train.y[rows])).backward()
            optimizer.step()
    return Run(task, dump(module), data.test)


@pytest.fixture(scope="module")
def shipped(trained: Run) -> Shipped:
    return ship(*trained, SEED, Ship())  # type: ignore[call-arg]


def test_the_file_is_small_and_nearly_as_good_as_its_teacher(shipped: Shipped) -> None:
    found = shipped.metrics
    assert found["teacher_accuracy"] > 0.95
    assert found["int8_accuracy"] > found["teacher_accuracy"] - 0.04
    assert found["agreement"] > 0.97
    assert found["teacher_bytes"] == 4 * 50_826
    assert found["student_parameters"] == 2_410
    assert found["bytes"] == len(shipped.onnx) < found["teacher_bytes"] / 25
    assert shipped.method == "static"


def test_a_device_needs_onnxruntime_only(shipped: Shipped, trained: Run, tmp_path: Path) -> None:
    _, unseen = halves(trained.test, SEED)
    (tmp_path / "model.onnx").write_bytes(shipped.onnx)
    np.savez(tmp_path / "data.npz", x=unseen.x, y=unseen.y)
    program = """
import sys
for name in ("torch", "onnx", "onnxscript", "fedpress"):
    sys.modules[name] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
data = numpy.load("data.npz")
print(session.get_modelmeta().custom_metadata_map["fedpress.source"])
print(float(numpy.mean(session.run(None, {"input": data["x"]})[0].argmax(1) == data["y"])))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    source, accuracy = done.stdout.split()
    assert source == content_hash(trained.teacher)
    assert float(accuracy) == pytest.approx(shipped.metrics["int8_accuracy"], abs=0.02)


def test_the_metadata_say_where_the_file_is_from(shipped: Shipped, trained: Run) -> None:
    assert shipped.metadata == {
        "fedpress.task": "digits",
        "fedpress.source": content_hash(trained.teacher),
        "fedpress.device_class": "any",
        "fedpress.input": "float32[n,64]",
        "fedpress.quantisation": "static",
        "fedpress.accuracy": f"{shipped.metrics['int8_accuracy']:.4f}",
    }


def test_labels_of_the_transfer_half_are_not_used_and_a_seed_gives_one_file(trained: Run) -> None:
    hidden = trained.test.y.copy()
    order = {row.tobytes(): n for n, row in enumerate(trained.test.x)}
    transfer, unseen = halves(trained.test, SEED)
    assert len(transfer) + len(unseen) == len(trained.test)
    hidden[[order[row.tobytes()] for row in transfer.x]] = 0
    told: list[int] = []
    first = ship(*trained, SEED, BRIEF, progress=lambda epoch, _: told.append(epoch))
    again = ship(trained.task, trained.teacher, Split(trained.test.x, hidden), SEED, BRIEF)
    assert first == again
    assert told == [1, 2, 3, 4]


def test_accuracies_are_those_of_the_half_that_nothing_saw(shipped: Shipped, trained: Run) -> None:
    _, unseen = halves(trained.test, SEED)
    assert shipped.metrics["measured_examples"] == len(unseen)
    assert shipped.metrics["int8_accuracy"] == measured(trained.task, run(shipped.onnx, unseen.x), unseen)


def test_what_is_missing_is_named(trained: Run) -> None:
    task, teacher, test = trained
    with pytest.raises(TaskError, match=r"Task 'digits' has no student\(\): add"):
        ship(replace(task, student=None), teacher, test, SEED, BRIEF)
    with pytest.raises(TaskError, match=r"Expected student\(\) of task 'digits' to return"):
        ship(replace(task, student=lambda: None), teacher, test, SEED, BRIEF)
    with pytest.raises(SpecError, match=r"missing \['head.bias'\]"):
        ship(task, {n: a for n, a in teacher.items() if n != "head.bias"}, test, SEED, BRIEF)
    with pytest.raises(DataError, match="at least 20 held-out examples"):
        ship(task, teacher, test.take(np.arange(5)), SEED, BRIEF)
