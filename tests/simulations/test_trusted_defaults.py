"""The default codecs on models that failed with them once: each ends as its uncompressed run does, and no statistic
leaves its domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpress.plan import load
from fedpress.simulations.engines import simulate

_LOGISTIC = '''
"""Logistic regression: 24 parameters, all of one size."""
import numpy as np
import torch


def model():
    return torch.nn.Linear(11, 2)


def data(_):
    r = np.random.default_rng(3)
    x = r.normal(size=(3000, 11)).astype("f4")
    y = (x @ r.normal(size=11) > 0).astype("i8")
    return (x[:2000], y[:2000]), (x[2000:], y[2000:])
'''
_NORMALISED = '''
"""Batch normalisation of inputs in units of their own: running variances go far from 1."""
import numpy as np
import torch


def model():
    norm, hidden = torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 24)
    return torch.nn.Sequential(norm, hidden, torch.nn.BatchNorm1d(24), torch.nn.ReLU(), torch.nn.Linear(24, 3))


def data(_):
    r = np.random.default_rng(4)
    x = r.normal(size=(3000, 5))
    y = x[:, :3].argmax(1)
    x = (x * {scale}).astype("f4")
    return (x[:2000], y[:2000]), (x[2000:], y[2000:])
'''
_RAW = ("upload.codec=raw", "download.codec=raw")


def accuracy(path: Path, name: str, *keys: str) -> float:
    """Final accuracy of an inline run."""
    words = ("engine.name=inline", "evaluate.clients_every=0", f'run.out="{path}"', f"run.name={name}", *keys)
    result = simulate(load(None, words))
    assert not result.summary.warnings
    assert result.summary.accuracy is not None
    return result.summary.accuracy


def task(path: Path, source: str) -> str:
    """A key that names the task in a file of its own."""
    file = path / "problem.py"
    file.write_text(source)
    return f'task.name="{file}"'


def test_a_model_of_few_parameters_learns(tmp_path: Path) -> None:
    keys = (task(tmp_path, _LOGISTIC), "clients.count=4", "clients.partition=iid", "run.rounds=25")
    assert accuracy(tmp_path, "default", *keys) >= 0.96


def test_adam_learns(tmp_path: Path) -> None:
    """Its updates are of one size: a dead zone that is a multiple of their root mean square sends none of them."""
    keys = ("task.name=digits", "train.optimizer=adam", "train.lr=0.002", "clients.count=4", "run.rounds=12")
    assert accuracy(tmp_path, "default", *keys) >= accuracy(tmp_path, "raw", *keys, *_RAW) - 0.03


@pytest.mark.parametrize("scale", ["[2e-2] * 5", "[1e-3, 1.0, 1e3, 1e-2, 50.0]"])
def test_normalisation_of_raw_inputs_learns_and_variances_stay_positive(tmp_path: Path, scale: str) -> None:
    source = _NORMALISED.format(scale=scale)
    keys = (task(tmp_path, source), "clients.count=4", "clients.partition=iid", "run.rounds=12")
    assert accuracy(tmp_path, "default", *keys) >= accuracy(tmp_path, "raw", *keys, *_RAW) - 0.02
    found = load_file(tmp_path / "default" / "checkpoints" / "last.safetensors")
    variances = [array for name, array in found.items() if name.endswith("running_var")]
    assert len(variances) == 2
    assert all(float(np.min(array)) > 0 for array in variances)
