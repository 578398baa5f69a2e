"""A layer that local privacy cannot have is named with its remedies; the switch puts another in its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedpress import torch_model
from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.params import content_hash
from fedpress.plan import load
from fedpress.privacy.modules import check, fixed
from fedpress.simulations.engines import simulate
from fedpress.simulations.problem import Problem
from fedpress.task import Task


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.memory(x)[0][:, -1])
        return out


BAD: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "deep": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.BatchNorm1d(8))), r"'1\.0' \(BatchNorm1d\)", (4,)),
    "no parameters": (lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False)), "'1'", (4,)),
    "statistics": (
        lambda: nn.Sequential(nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()),
        r"'0' \(InstanceNorm1d\)",
        (2, 4),
    ),
    "recurrent": (Recurrent, r"'memory' \(LSTM\)", (5, 4)),
    "itself": (lambda: nn.BatchNorm1d(4), r"'' \(BatchNorm1d\)", (4,)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_with_three_remedies_is_mended_by_the_switch(name: str) -> None:
    make, layer, shape = BAD[name]
    task = Task(name, make, lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(PrivacyError, match=rf"Layer {layer}.* use .*model\(\), or set privacy\.fix_modules = true"):
        check(torch_model.build(task, 1))
    module = torch_model.build(fixed(task), 1)
    check(module)
    assert not list(module.buffers())
    again = torch_model.build(fixed(task), 1)
    assert content_hash(torch_model.dump(module)) == content_hash(torch_model.dump(again)), "the seed decides"
    x = torch.from_numpy(Stream(2).uniform(3 * math.prod(shape))).reshape(3, *shape)
    together, apart = module(x), torch.cat([module(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    assert float(together.detach().std(0).max()) > 1e-2, "it still depends on what it is given"


def test_what_can_be_trained_privately_is_left_as_it_is() -> None:
    task = Task("fine", lambda: nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8)), lambda _: None)  # type: ignore[arg-type, return-value]
    one, other = torch_model.build(task, 1), torch_model.build(fixed(task), 1)
    assert content_hash(torch_model.dump(one)) == content_hash(torch_model.dump(other))


NORMAL = """
import numpy, torch
def model():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
def data(_):
    x = numpy.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    return (x, y), (x, y)
"""


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_server_and_devices_have_the_same_other_model(tmp_path: Path, engine: str) -> None:
    (tmp_path / "normal.py").write_text(NORMAL)
    words = [f"task.name={tmp_path / 'normal.py'}", "clients.count=2", "run.rounds=1", f"engine.name={engine}"]
    words += ["privacy.mode=local", f"run.out={tmp_path}", "run.name=fixed", "privacy.fix_modules=true"]
    plan = load(None, words)
    names = list(Problem(plan).initial.tensors)
    assert names == [f"{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")]
    assert (simulate(plan).summary.epsilon or 0) > 0


def test_without_the_switch_the_run_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "normal.py").write_text(NORMAL)
    words = [f"task.name={tmp_path / 'normal.py'}", "clients.count=2", "run.rounds=1", "engine.name=inline"]
    with pytest.raises(PrivacyError, match=r"Layer '1' \(BatchNorm1d\).*GroupNorm.*privacy\.fix_modules"):
        simulate(load(None, [*words, "privacy.mode=local", f"run.out={tmp_path}"]))
