"""The built-in tasks on real data: what the files are known to hold, models that learn; a user's own task."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpress import torch_model
from fedpress.errors import DataError, TaskError
from fedpress.simulations.catalogue import SETS
from fedpress.simulations.tasks import MODULES, idx, load_task, names
from fedpress.simulations.tasks.heart import HOSPITALS
from fedpress.simulations.tasks.shakespeare import ALPHABET, roles
from fedpress.simulations.tasks.splits import last, spread
from fedpress.task import Data, Split

#: name: (train, test, shape of one example, shape of one target, classes, owners, parameters of model and of student)
FACTS = {
    "digits": (1442, 355, (64,), (), 10, 0, 50_826, 2_410),
    "mnist": (60_000, 10_000, (1, 28, 28), (), 10, 0, 106_122, 14_106),
    "fashion-mnist": (60_000, 10_000, (1, 28, 28), (), 10, 0, 106_122, 14_106),
    "femnist": (14_708, 1_685, (1, 28, 28), (), 62, 105, 213_886, 28_542),
    "har": (8_059, 2_060, (561,), (), 6, 30, 80_582, 9_094),
    "har-inertial": (8_059, 2_060, (9, 128), (), 6, 30, 54_086, 6_894),
    "shakespeare": (10_912, 1_156, (80,), (80,), 65, 141, 131_905, 35_265),
    "heart": (740, 180, (13,), (), 2, 4, 258, 28),
}


@pytest.fixture(scope="module", params=FACTS)
def named(request: pytest.FixtureRequest, data_dir: Path) -> tuple[str, Data]:
    """A task's name and its data, loaded once."""
    return request.param, load_task(request.param).data(data_dir)


def test_every_task_is_listed_and_has_its_data_set() -> None:
    assert names() == tuple(MODULES) == tuple(SETS) == tuple(FACTS)


def test_an_unknown_task_names_the_closest_and_underscores_will_do() -> None:
    with pytest.raises(TaskError, match=r"got 'fashionmnist'\. Did you mean 'fashion-mnist'\?"):
        load_task("fashionmnist")
    assert load_task("fashion_mnist").name == "fashion-mnist"


def test_listing_and_loading_need_neither_torch_nor_sklearn() -> None:
    program = (
        "import sys; from fedpress.simulations.tasks import names, load_task; [load_task(n) for n in names()]; "
        "sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_data_is_as_its_file_is_known_to_be(named: tuple[str, Data]) -> None:
    name, data = named
    train, test, example, target, classes, owners, *_ = FACTS[name]
    assert (len(data.train), len(data.test), len(data.owners)) == (train, test, owners)
    for split in (data.train, data.test):
        assert split.x.shape[1:] == example
        assert split.y.shape[1:] == target
        assert split.x.dtype == (np.int64 if name == "shakespeare" else np.float32)
        assert split.y.dtype == np.int64
        assert np.isfinite(split.x).all()
        assert split.y.min() >= 0
        assert split.y.max() < classes
    assert len(np.unique(data.train.y)) >= classes - 1, "'&' is in no whole window of a role's first 90 %"
    if owners:
        assert data.train.owner is not None
        assert data.test.owner is not None
        assert set(data.train.owner.tolist()) == set(data.test.owner.tolist()) == set(range(owners))


def test_model_learns_keeps_its_contract_and_is_repeatable(named: tuple[str, Data]) -> None:
    name, data = named
    task, classes, sizes = load_task(name), FACTS[name][4], FACTS[name][6:]
    x, y = torch_model.tensor(data.train.x[::97][:16]), torch_model.tensor(data.train.y[::97][:16])
    for make, size in zip((task.model, task.student), sizes, strict=True):
        assert make is not None
        torch.manual_seed(0)
        module = make()
        assert torch_model.spec_of(module).size == size
        assert torch_model.spec_of(module).matching(["head.*"]) == ("head.weight", "head.bias")
        outputs = module(x)
        assert outputs.shape == (*y.shape, classes)
        before = torch_model.batch_loss(task, outputs, y)
        before.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad
        assert torch_model.batch_loss(task, module(x), y).item() < before.item()
    first, second = torch_model.dump(torch_model.build(task, 7)), torch_model.dump(torch_model.build(task, 7))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert torch_model.evaluate(torch_model.build(task, 7), task, data.test.take(np.arange(8))).keys() == {
        "accuracy",
        "loss",
    }


@pytest.mark.parametrize("name", FACTS)
def test_every_model_has_gradients_per_example(name: str, data_dir: Path) -> None:
    validators = pytest.importorskip("opacus.validators")
    assert validators.ModuleValidator.validate(load_task(name).model(), strict=False) == []


def test_digits_learn_in_a_few_epochs(data_dir: Path) -> None:
    task = load_task("digits")
    data, module = task.data(data_dir), torch_model.build(task, 0)
    optimiser, generator = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9), torch.Generator().manual_seed(0)
    x, y = torch_model.tensor(data.train.x), torch_model.tensor(data.train.y)
    for _ in range(5):
        for batch in torch.randperm(len(x), generator=generator).split(32):
            optimiser.zero_grad()
            torch_model.batch_loss(task, module(x[batch]), y[batch]).backward()
            optimiser.step()
    assert torch_model.evaluate(module, task, data.test)["accuracy"] > 0.9


def test_images_have_ink_on_nothing(data_dir: Path) -> None:
    for name, mean in {"mnist": 0.1307, "fashion-mnist": 0.2860}.items():
        train = load_task(name).data(data_dir).train
        assert train.x.mean() == pytest.approx(mean, abs=1e-3)
        assert (train.x.min(), train.x.max()) == (0, 1)
    digits = load_task("mnist").data(data_dir).train.y
    assert np.bincount(digits).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    written = load_task("femnist").data(data_dir)
    assert written.train.x[:, 0, 0, :].mean() < 0.05, "the margin is paper"
    assert written.owners[0] == "f1501_00"


def test_activities_of_a_person_come_before_their_test(data_dir: Path) -> None:
    features, inertial = load_task("har").data(data_dir), load_task("har-inertial").data(data_dir)
    for one, other in ((features.train, inertial.train), (features.test, inertial.test)):
        assert np.array_equal(one.y, other.y)
        assert np.array_equal(one.owner, other.owner)
    assert features.owners[0] == "person-01"
    everyone = np.bincount(features.train.y) + np.bincount(features.test.y) + 30
    assert everyone.tolist() == [1722, 1544, 1406, 1777, 1906, 1944], "30 people left out one window per activity"


def test_roles_are_those_of_the_plays(data_dir: Path) -> None:
    folder = data_dir / "tiny-shakespeare"
    known = json.loads(gzip.decompress((folder / "roles.json.gz").read_bytes()))
    found = roles((folder / "input.txt").read_text(encoding="ascii"))
    assert len(found) == 309
    assert {role: said.strip() for role, said in found.items()} == {
        role: said.strip() for role, said in known["roles"].items()
    }
    assert "".join(known["vocab"]) == ALPHABET


def test_a_window_is_followed_by_its_targets(data_dir: Path) -> None:
    data = load_task("shakespeare").data(data_dir)
    assert np.array_equal(data.train.x[:, 1:], data.train.y[:, :-1])
    assert data.owners[0] == "First Citizen"
    said = "".join(ALPHABET[code] for code in data.train.x[0])
    assert said.startswith("Before we proceed any further, hear me speak.\n")


def test_next_symbol_does_not_see_the_future() -> None:
    module = load_task("shakespeare").model()
    x = torch.zeros(1, 80, dtype=torch.int64)
    later = x.clone()
    later[0, 40] = 5
    same = (module(x) == module(later)).all(-1)[0]
    assert same[:40].all()
    assert not same[40]


def test_hospitals_are_scaled_by_their_training_rows(data_dir: Path) -> None:
    data = load_task("heart").data(data_dir)
    assert data.owners == HOSPITALS
    assert np.allclose(data.train.x.mean(0), 0, atol=1e-5)
    assert np.allclose(data.train.x.std(0), 1, atol=1e-5)
    ill = [round(100 * float(data.train.y[data.train.owner == site].mean())) for site in range(4)]
    assert ill == [46, 36, 93, 75]


def test_splits_take_their_share_of_every_group() -> None:
    groups = np.array([0] * 10 + [1] * 5)
    assert np.flatnonzero(spread(groups, 0.2)).tolist() == [4, 9, 14]
    train, test = last(groups, 0.2, gap=1)
    assert np.flatnonzero(test).tolist() == [8, 9, 14]
    assert np.flatnonzero(~(train | test)).tolist() == [7, 13]


@pytest.mark.parametrize(
    "raw", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01a", b"\0\0\x08\x03"]
)
def test_a_file_that_is_not_idx_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(DataError, match="IDX"):
        idx.read(path)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="IDX"):
        idx.read(path)


def test_a_users_own_task_keeps_the_contract() -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "wine.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
    task = load_task(str(example))
    data = task.data(Path())
    assert isinstance(data.train, Split)
    assert (len(data.train), len(data.test)) == (133, 45)
    metrics = torch_model.evaluate(torch_model.build(task, 0), task, data.test)
    assert metrics.keys() == {"accuracy", "confidence", "loss"}
