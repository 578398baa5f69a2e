"""What a round does to each kind of tensor, whatever arrives and whatever the strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.params import Array, Spec, Tensors
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import domains
from fedpress.server.aggregate import Gathering
from fedpress.server.strategies import Aggregate, Arrival, build

MODEL = {n: np.ones(2, np.float32) for n in ("w", "bn.running_mean", "bn.running_var", "bn.scale_var", "base.w")}
SPEC = Spec.of(
    MODEL,
    {"bn.running_mean": "statistic", "bn.running_var": "statistic", "bn.scale_var": "statistic", "base.w": "frozen"},
)
STEPPED = ["fedavg strategy.lr=1.2", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "feddyn"]


def arrival(staleness: int = 0, base: Tensors = MODEL, newest: Tensors = MODEL, **report: float) -> Arrival:
    said = pb.Training(epochs=2, batch_size=1, lr=0.1)
    return Arrival(pb.Report(examples=1, steps=1, **report), said, staleness, lambda: base, lambda: newest)  # type: ignore[arg-type]


def after(strategy: str, updates: Sequence[Tensors], model: Tensors = MODEL, rounds: int = 1) -> dict[str, Array]:
    made = build(load(None, [f"strategy.name={word}" if "=" not in word else word for word in strategy.split()]))
    state = made.init(domains.weights(SPEC))
    for _ in range(rounds):
        gathering = Gathering(domains.moving(SPEC))
        for update in updates:
            gathering.fold(domains.read(made, SPEC, update, arrival()), made.share(arrival()))
        new, state = domains.step(made, SPEC, model, gathering.aggregate(len(updates)), state)
        assert tuple(new) == SPEC.names
        model = dict(new)
    return dict(model)


def moved(value: float) -> Tensors:
    return {n: np.full_like(a, value) for n, a in MODEL.items()}


@pytest.mark.parametrize("strategy", STEPPED)
def test_a_strategy_steps_weights_and_its_rate_is_theirs_alone(strategy: str) -> None:
    new = after(strategy, [moved(0.25), moved(0.75)], rounds=2)
    assert not np.allclose(new["w"], 2.0)
    assert (new["bn.running_mean"] == 2.0).all()
    assert (new["bn.running_var"] == 2.0).all()
    assert np.array_equal(new["base.w"], MODEL["base.w"])


def test_fednova_takes_steps_off_weights_alone() -> None:
    made, update = build(load(None, ["strategy.name=fednova", "strategy.lr=1"])), moved(1.0)
    few, many = (
        Arrival(pb.Report(examples=4, steps=n), pb.Training(epochs=9, batch_size=1), 0, dict, dict) for n in (1, 4)
    )
    gathering = Gathering(domains.moving(SPEC))
    for each in (few, many):
        gathering.fold(domains.read(made, SPEC, update, each), made.share(each))
    new, _ = domains.step(made, SPEC, MODEL, gathering.aggregate(2), {})
    assert new["w"] == pytest.approx(1 + 2.5 * (1 + 1 / 4) / 2)
    assert (new["bn.running_mean"] == 2.0).all()


@given(st.floats(-4, 4, width=32), st.floats(0, 8, width=32))
def test_a_variance_stays_one_and_falls_by_no_more_than_a_factor(change: float, old: float) -> None:
    model = {**MODEL, "bn.running_var": np.array([old, 1], np.float32)}
    new = after("fedavg", [{**moved(0.0), "bn.running_var": np.full(2, change, np.float32)}], model)["bn.running_var"]
    plain = model["bn.running_var"] + np.float32(change)
    assert np.array_equal(new, np.maximum(plain, model["bn.running_var"] / 64))
    assert (new >= 0).all()


def test_what_may_be_negative_is_not_held_up() -> None:
    falling = moved(-3.0)
    assert (after("fedavg", [falling])["bn.running_mean"] == -2.0).all()
    no_variance = {**MODEL, "bn.scale_var": np.array([-1, 1], np.float32)}
    assert (after("fedavg", [falling], no_variance)["bn.scale_var"] == [-4.0, -2.0]).all()


def test_a_late_clients_statistic_counts_as_the_value_it_has() -> None:
    made = build(load(None, ["strategy.lr=1", "cohort.discount=1"]))
    base = {**MODEL, "bn.running_var": np.full(2, 4, np.float32)}
    late = arrival(staleness=1, base=base)
    gathering = Gathering(domains.moving(SPEC))
    gathering.fold(domains.read(made, SPEC, moved(-3.5), late), made.share(late))
    new, _ = domains.step(made, SPEC, MODEL, gathering.aggregate(1), {})
    assert (new["bn.running_var"] == 1 + (0.5 - 1) / 2).all(), "half of the way to the client's 0.5"
    assert (new["w"] == 1 - 3.5 / 2).all(), "a weight moves by the change"


def test_statistics_that_were_not_released_stay() -> None:
    made = build(load(None, ["strategy.lr=1"]))
    new, _ = domains.step(made, SPEC, MODEL, Aggregate({"w": np.ones(2, np.float32)}, 1, 1), {})
    assert {n for n in MODEL if not np.array_equal(new[n], MODEL[n])} == {"w"}
