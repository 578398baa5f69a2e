"""FedAvg and FedPer by hand, and the running sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import PlanError, SpecError
from fedpress.params import Spec
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.aggregate import Gathering, WeightedSum
from fedpress.server.strategies import Aggregate, Arrival, Share, build

SPEC = Spec.of({"body.w": np.zeros(2, np.float32), "head.w": np.zeros(1, np.float32)})


def step(updates: list[tuple[list[float], int]], *options: str) -> list[float]:
    strategy = build(load(None, ["upload.codec=raw", *options]))
    spec = Spec.of({"w": np.zeros(2, np.float32)})
    gathering = Gathering(spec)
    for delta, examples in updates:
        arrival = Arrival(pb.Report(examples=examples), pb.Training(lr=1.0), 0, dict, dict)
        gathering.fold({"w": np.array(delta, np.float32)}, strategy.share(arrival))
    model, _ = strategy.step(
        {"w": np.array([1, 1], np.float32)}, gathering.aggregate(len(updates)), strategy.init(spec)
    )
    return [float(x) for x in model["w"]]


def test_fedavg_weighs_by_examples_or_uniformly() -> None:
    updates = [([1.0, 0.0], 30), ([0.0, -4.0], 10)]
    assert step(updates) == [1.75, 0.0]  # 1 + 30/40, 1 - 4 * 10/40
    assert step(updates, "strategy.weighting=uniform") == [1.5, -1.0]


def test_late_updates_count_less_by_fedasyncs_polynomial() -> None:
    report = pb.Report(examples=30)
    for discount, expected in ((0.5, 0.5), (1.0, 0.25), (0.0, 1.0)):
        strategy = build(load(None, [f"cohort.discount={discount}"]))
        late, fresh = (strategy.share(Arrival(report, pb.Training(), s, dict, dict)) for s in (3, 0))
        assert (late.weight, late.scale) == (30, expected)  # 4 ** -discount
        assert (fresh.weight, fresh.scale) == (30, 1)


def test_a_discount_is_not_made_up_for_by_dividing() -> None:
    total = WeightedSum(spec := Spec.of({"w": np.zeros(1, np.float32)}))
    total.fold({"w": np.array([4.0], np.float32)}, 10, 0.5)
    assert total.mean()["w"] == 2
    total.fold({"w": np.array([-1.0], np.float32)}, 30)
    assert total.mean()["w"] == -0.25  # (10 * 0.5 * 4 - 30) / (10 + 30)
    for weight, scale in ((0.0, 1.0), (float("inf"), 1.0), (1.0, float("nan"))):
        with pytest.raises(SpecError, match="weight"):
            WeightedSum(spec).fold({}, weight, scale)


def test_fedper_shares_all_but_what_matches() -> None:
    strategy = build(load(None, ["strategy.name=fedper", 'strategy.personal=["head.*"]']))
    assert [p.name for p in strategy.layout(SPEC)] == ["body.w"]
    assert list(strategy.rule(SPEC).personal) == ["head.w"]
    for patterns in ("[]", '["*"]'):
        with pytest.raises(PlanError, match=r"strategy\.personal"):
            build(load(None, ["strategy.name=fedper", f"strategy.personal={patterns}"])).layout(SPEC)


@given(st.permutations(range(7)), st.integers(0, 1000))
def test_the_order_of_arrival_does_not_show(order: list[int], seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    updates = rng.standard_normal((7, 50)).astype(np.float32)
    weights = rng.integers(1, 500, 7)
    spec = Spec.of({"w": updates[0]})
    means = []
    for indexes in (range(7), order):
        total = WeightedSum(spec)
        for i in indexes:
            total.fold({"w": updates[i]}, float(weights[i]))
        means.append(total.mean()["w"])
    np.testing.assert_array_equal(*means)
    exact = np.average(updates.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(means[0], exact, rtol=1e-6)


def test_a_sum_refuses_weights_that_mean_nothing_and_an_empty_mean() -> None:
    total = WeightedSum(SPEC)
    with pytest.raises(SpecError):
        total.mean()
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="weight"):
            total.fold({}, weight)


def test_each_group_is_divided_by_what_counted_in_it() -> None:
    spec = Spec.of({n: np.zeros(1, np.float32) for n in ("a:w", "b:w", "c:w")})
    update = {n: np.full(1, 8, np.float32) for n in spec.names}
    gathering = Gathering(spec)
    for _ in range(2):
        gathering.fold(update, Share(1.0, groups=("a",)))
        gathering.fold(update, Share(3.0, 0.5, groups=("a", "b", "none")))
        mean = gathering.aggregate(2).mean
        assert [float(mean[n][0]) for n in spec.names] == [(8 + 3 * 4) / 4, 4.0, 0.0]
        gathering.clear()


def test_a_round_begins_with_nothing_of_the_one_before() -> None:
    def of(gathering: Gathering, value: float, fact: float) -> Aggregate:
        gathering.fold({"w": np.full(1, value, np.float32)}, Share(2.0, 1.0, {"fact": fact}))
        return gathering.aggregate(3)

    spec = Spec.of({"w": np.zeros(1, np.float32)})
    used = Gathering(spec)
    of(used, 8.0, 5.0)
    used.clear()
    assert of(used, 1.0, 3.0) == of(Gathering(spec), 1.0, 3.0) == Aggregate({"w": np.ones(1)}, 1, 3, {"fact": 3.0})


def test_the_servers_learning_rate_scales_the_mean() -> None:
    updates = [([0.25, 0.25], 1), ([0.75, 0.75], 1)]
    for lr, expected in ((1.0, 1.5), (1.5, 1.75), (0.5, 1.25)):
        assert step(updates, f"strategy.lr={lr}") == [expected, expected]
