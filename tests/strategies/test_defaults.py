"""Where a plan names no option, it is the paper's own: what its algorithm, or most of its experiments, are run with."""

from __future__ import annotations

import pytest

from fedpress.plan import load
from fedpress.server.strategies import build

_HEAD = 'strategy.personal=["head.*"]'


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("fedavgm", [], {"beta": 0.9}),
        ("fedadagrad", [], {"beta1": 0.0, "tau": 1e-3}),
        ("fedadam", [], {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
        ("fedyogi", [], {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
        ("moon", [], {"mu": 1.0, "temperature": 0.5}),
        ("fedrep", [_HEAD], {"head_epochs": 10}),
        ("fedbabu", [_HEAD], {"fine_tune_epochs": 5}),
        ("fedala", [], {"layers": 1, "sample": 0.8, "rate": 1.0}),
        ("feddyn", [], {"lr": 1.0}),
        ("fedasync", ["cohort.buffer=1"], {"alpha": 0.6, "discount": 0.5, "lr": 1.0}),
        ("fedbuff", ["cohort.buffer=2"], {"discount": 0.5}),  # 1 / sqrt(1 + staleness)
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_options_are_the_papers(name: str, more: list[str], expected: dict[str, float]) -> None:
    strategy = build(load(None, [f"strategy.name={name}", *more]))
    assert {key: getattr(strategy, key) for key in expected} == expected
