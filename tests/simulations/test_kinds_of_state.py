"""A model's state in whole runs: weights are trained, statistics averaged, the rest is equal on both ends and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from fedpress import torch_model
from fedpress.errors import DataError, PlanError, PrivacyError, TaskError
from fedpress.params import Array, from_bytes
from fedpress.plan import Plan, load
from fedpress.simulations.engines import simulate
from fedpress.simulations.problem import Problem

#: Inputs in small units, a frozen layer, batch normalisation, a permutation drawn by NumPy and a sign drawn by Python.
_TASK = """
import random
import numpy as np, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.norm, self.head = torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3)
        self.base.requires_grad_(False)
        self.register_buffer("order", torch.from_numpy(np.random.permutation(16)))
        self.register_buffer("flip", torch.tensor(random.random() < 2))
        self.register_buffer("extra", torch.full((), random.random()))
    def forward(self, x):
        return self.head(torch.relu(self.norm(self.base(x * 10))[:, self.order]))
def model():
    return Net()
def data(_):
    r = np.random.default_rng(0)
    x = r.normal(size=(600, 4))
    y = x[:, :3].argmax(1)
    x = (x * SCALE).astype("f4")
    return (x[:400], y[:400]), (x[400:], y[400:])
"""
_PLAIN = """
import numpy as np, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 3)
        BUFFER
    def forward(self, x):
        FORWARD
        return self.body(x)
def model():
    return Net()
def data(_):
    x = np.random.default_rng(0).normal(size=(80, 4)).astype("f4")
    return (x[:60], x[:60, :3].argmax(1)), (x[60:], x[60:, :3].argmax(1))
"""


def plan(place: Path, task: str, *more: str) -> Plan:
    (place / "mine.py").write_text(task)
    keys = (f"task.name={place / 'mine.py'}", f"run.out={place}", "run.name=kinds", "run.rounds=4", "clients.count=4")
    return load(None, [*keys, "engine.name=inline", "clients.partition=iid", *more])


def small(place: Path, *more: str) -> Plan:
    return plan(place, _TASK.replace("SCALE", "1e-2"), *more)


def tried(place: Path, buffer: str, forward: str = "pass", *more: str) -> Plan:
    return plan(place, _PLAIN.replace("BUFFER", buffer).replace("FORWARD", forward), *more)


def last(made: Plan) -> dict[str, Array]:
    return from_bytes((made.directory / "checkpoints" / "last.safetensors").read_bytes())


@pytest.mark.parametrize(
    "words",
    ["strategy.lr=1.2", "strategy.name=fedadam", "strategy.name=fedavgm", "upload.codec=ef+topk:0.5+int8"],
)
def test_frozen_tensors_stay_to_the_bit_and_variances_stay_variances(tmp_path: Path, words: str) -> None:
    made = small(tmp_path, words)
    simulate(made)
    begun, ended = Problem(made).initial.tensors, last(made)
    for name in ("base.weight", "base.bias"):
        assert np.array_equal(ended[name], begun[name])
    assert not np.array_equal(ended["head.weight"], begun["head.weight"])
    assert (ended["norm.running_var"] > 0).all()
    assert not np.array_equal(ended["norm.running_var"], begun["norm.running_var"])


def test_a_checkpoint_is_all_of_the_modules_state(tmp_path: Path) -> None:
    made = small(tmp_path, "run.rounds=2", "run.checkpoint_every=1")
    simulate(made)
    problem = Problem(made)
    for file in ("last", "best", "round-00001"):
        module = torch_model.build(problem.task, seed=99)
        module.load_state_dict(
            safetensors.torch.load_file(made.directory / "checkpoints" / f"{file}.safetensors"), strict=True
        )
        drawn = torch_model.build(problem.task, made.run.seed).state_dict()
        for name in ("order", "flip", "extra"):
            assert module.state_dict()[name].equal(drawn[name])


def test_the_seed_rules_all_generators_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    import random

    task = Problem(small(tmp_path)).task
    states = [np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()]  # type: ignore[index, union-attr]  # noqa: NPY002
    one, same, other = (torch_model.build(task, seed).state_dict() for seed in (7, 7, 2**63 + 5))
    assert all(value.equal(same[name]) for name, value in one.items())
    for name in ("order", "extra", "base.weight"):
        assert not one[name].equal(other[name])
    after = [np.random.get_state()[1], random.getstate(), torch.get_rng_state()]  # type: ignore[index]  # noqa: NPY002
    assert np.array_equal(states[0], after[0])
    assert states[1] == after[1]
    assert torch.equal(states[2], after[2])


def test_devices_train_under_the_servers_permutation(tmp_path: Path) -> None:
    problem = Problem(small(tmp_path))
    device, initial = problem.trainer(0), problem.initial
    drawn = device._module.state_dict()  # type: ignore[attr-defined]
    assert all(np.array_equal(drawn[name].numpy(), array) for name, array in initial.unsent.items())
    assert device.spec == initial.spec
    assert all(np.array_equal(device.initial(problem.plan.run.seed)[n], a) for n, a in initial.tensors.items())


# -- what is refused before anything starts ---------------------------------------------------------------------------


def test_complex_state_is_refused_by_name(tmp_path: Path) -> None:
    made = tried(tmp_path, "self.turn = torch.nn.Parameter(torch.ones(3, dtype=torch.cfloat))")
    with pytest.raises(TaskError, match=r"task 'mine', got complex64 in 'turn'.*torch\.view_as_real"):
        Problem(made).check()


@pytest.mark.parametrize(
    ("buffer", "change"),
    [
        ("torch.zeros((), dtype=torch.int64)", "self.kept += 1"),
        ("torch.zeros(3, dtype=torch.bool)", "self.kept[0] = True"),
    ],
    ids=["counter", "mask"],
)
def test_integers_that_training_changes_are_refused_by_name(tmp_path: Path, buffer: str, change: str) -> None:
    register = f"self.register_buffer('kept', {buffer})"
    Problem(tried(tmp_path, register)).check()
    with pytest.raises(TaskError, match=r"task 'mine', but it changes 'kept' \((int64|bool)\).*persistent=False"):
        Problem(tried(tmp_path, register, f"if self.training: {change}")).check()
    Problem(tried(tmp_path, f"{register[:-1]}, persistent=False)", f"if self.training: {change}")).check()


def test_integers_that_the_seed_does_not_rule_are_refused_by_name(tmp_path: Path) -> None:
    drawn = "self.register_buffer('order', torch.from_numpy(np.random.default_rng().integers(1 << 30, size=8)))"
    with pytest.raises(TaskError, match="'order' each time, got another"):
        Problem(tried(tmp_path, drawn)).check()


def test_the_numpy_trainer_refuses_what_it_would_train_all_the_same(tmp_path: Path) -> None:
    frozen = "self.body.bias.requires_grad_(False)"
    with pytest.raises(PlanError, match=r"'body\.bias' \(frozen\): the trainer 'numpy'.*train\.trainer"):
        Problem(tried(tmp_path, frozen, "pass", "train.trainer=numpy")).check()
    Problem(tried(tmp_path, "pass", "pass", "train.trainer=numpy")).check()


def test_a_model_that_fails_on_the_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"model of task 'mine' failed on 2 of its examples, \[2, 4\]: ValueError: no"):
        Problem(
            tried(tmp_path, "self.register_buffer('kept', torch.zeros(1).long())", "raise ValueError('no')")
        ).check()


def test_a_model_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    mask = "self.register_buffer('mask', torch.full((2, 2), float('-inf')).triu(1))"
    with pytest.raises(TaskError, match=r"task 'mine', got NaN or infinity in 'mask', 1 of 4: .*persistent=False"):
        Problem(tried(tmp_path, mask)).check()


@pytest.mark.parametrize(("value", "array"), [("np.nan", "x_train"), ("-np.inf", "x_test"), ("np.inf", "y_test")])
def test_data_that_are_not_finite_are_refused_by_array_and_row(tmp_path: Path, value: str, array: str) -> None:
    spoilt = {"x_train": f"x[17, 2] = x[30] = {value}", "x_test": f"x[77, 2] = x[79] = {value}"}.get(array, "pass")
    targets = f"y = y.astype('f4'); y[[77, 79]] = {value}" if array == "y_test" else "pass"
    split = f"""
    x = np.random.default_rng(0).normal(size=(80, 4)).astype("f4")
    y = x[:, :3].argmax(1)
    {spoilt}
    {targets}
    return (x[:60], y[:60]), (x[60:], y[60:])
"""
    task = _PLAIN.replace("BUFFER", "pass").replace("FORWARD", "pass").split("def data(_):")[0] + f"def data(_):{split}"
    count, row, rows = {"x_train": (5, 17, 60), "x_test": (5, 17, 20), "y_test": (2, 17, 20)}[array]
    with pytest.raises(DataError, match=rf"in {array} of task 'mine', .* {count} times, first in row {row} of {rows}:"):
        Problem(plan(tmp_path, task)).check()


# -- central privacy --------------------------------------------------------------------------------------------------

_CENTRAL = (
    *("privacy.mode=central", "strategy.weighting=uniform", "evaluate.clients_every=0", "clients.count=20"),
    *("cohort.fraction=0.5", "cohort.selection=poisson", "strategy.lr=1.2"),
)
_FROZEN = """
import numpy as np, torch
def model():
    made = torch.nn.Sequential(torch.nn.Linear(8, 16), NORM, torch.nn.ReLU(), torch.nn.Linear(16, 3))
    made[0].requires_grad_(False)
    made.register_buffer("scale", torch.ones(3))
    return made
def data(_):
    x = np.random.default_rng(0).normal(size=(480, 8)).astype("f4")
    return (x[:400], x[:400, :3].argmax(1)), (x[400:], x[400:, :3].argmax(1))
"""


def test_central_privacy_noises_weights_alone(tmp_path: Path) -> None:
    made = plan(tmp_path, _FROZEN.replace("NORM", "torch.nn.GroupNorm(2, 16)"), *_CENTRAL)
    simulate(made)
    begun, ended = Problem(made).initial.tensors, last(made)
    assert {n for n in begun if np.array_equal(begun[n], ended[n])} == {"0.weight", "0.bias", "scale"}


def test_central_privacy_refuses_statistics_by_name_and_takes_the_remedy(tmp_path: Path) -> None:
    task = _FROZEN.replace("NORM", "torch.nn.BatchNorm1d(16)")
    with pytest.raises(PrivacyError, match=r"buffer '1\.running_mean' of task 'mine'.*GroupNorm.*privacy\.fix_modules"):
        Problem(plan(tmp_path, task, *_CENTRAL)).check()
    Problem(plan(tmp_path, task, *_CENTRAL, "privacy.fix_modules=true")).check()
    Problem(plan(tmp_path, task, *_CENTRAL, "strategy.name=fedbn")).check()  # they stay on the devices
    Problem(plan(tmp_path, task.replace("(16)", "(16, track_running_stats=False)", 1), *_CENTRAL)).check()
