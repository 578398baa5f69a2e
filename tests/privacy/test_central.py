"""What a plan with central privacy comes to, and the plans that could not keep the promise."""

from __future__ import annotations

import math

import pytest

from fedpress.errors import PlanError
from fedpress.plan import Plan, load
from fedpress.privacy.accountants import Charge, epsilon
from fedpress.privacy.central import Central, check, participations, pool, sampling
from fedpress.server.strategies import build

PRIVATE = (
    "privacy.mode=central", "strategy.weighting=uniform", "evaluate.clients_every=0", "clients.count=100",
    "cohort.fraction=0.1", "cohort.selection=poisson", "run.rounds=100",
)  # fmt: skip


def plan(*more: str) -> Plan:
    return load(None, [*PRIVATE, *more])


def central(*more: str) -> Central:
    made = Central.of(plan(*more))
    assert made is not None
    return made


def test_without_central_privacy_there_is_none() -> None:
    assert Central.of(load(None)) is None
    assert Central.of(load(None, ["privacy.mode=local"])) is None


def test_an_epsilon_is_met_and_not_undershot() -> None:
    for more in ((), ("cohort.selection=uniform",), ("cohort.selection=round-robin",)):
        made = central("privacy.epsilon=3", *more)
        spent = epsilon(made.of_run(plan(*more)), made.delta)
        assert 0.99 * 3 < spent <= 3


def test_the_known_case() -> None:
    made = central("privacy.noise_multiplier=1")
    assert made.charge(1) == Charge(1.0, "poisson", 0.1)
    assert epsilon(made.of_run(plan()), made.delta) == pytest.approx(7.05, abs=0.01)


def test_replacing_a_client_costs_more_than_adding_one() -> None:
    poisson, fixed = central("privacy.epsilon=3"), central("privacy.epsilon=3", "cohort.selection=uniform")
    assert fixed.multiplier > 1.5 * poisson.multiplier


@pytest.mark.parametrize(
    ("more", "kind", "rounds"),
    [
        ((), "poisson", 10),
        (("cohort.selection=uniform",), "fixed", 10),
        (("cohort.selection=uniform", "cohort.fraction=1"), "none", 100),
        (("cohort.selection=round-robin",), "none", 10),
        (("cohort.selection=uniform", "cohort.buffer=20"), "none", 20),
        (("cohort.selection=uniform", "privacy.mechanism=banded", "privacy.bands=10"), "none", 10),
    ],
)
def test_only_a_secret_draw_amplifies(more: tuple[str, ...], kind: str, rounds: int) -> None:
    assert sampling(plan(*more)) == kind
    assert participations(plan(*more)) == rounds


def test_metrics_and_model_of_one_cohort_are_one_release() -> None:
    made = central("privacy.metrics_noise=2", "privacy.noise_multiplier=1", "evaluate.clients_every=5")
    assert made.charge(1).noise_multiplier == pytest.approx(1 / math.sqrt(1 + 1 / 4))
    assert made.charge(2).noise_multiplier == 1.0
    assert [r for r in range(1, 12) if made.measures(r)] == [1, 6, 11]


def test_small_cohorts_are_in_the_statement() -> None:
    made = central("clients.count=1000", "privacy.min_cohort=20")
    assert made.least == 20
    assert made.delta < 1e-5


def test_a_small_fleet_is_no_pool_for_large_cohorts() -> None:
    needed = pool(plan("clients.count=1000", "privacy.min_cohort=20"))
    assert 20 / 0.1 < needed < 1000
    assert pool(plan()) == 1


def test_a_lease_may_land_in_the_round_that_costs_most() -> None:
    made = central("privacy.metrics_noise=2", "evaluate.clients_every=5")
    assert made.dearest == min(made.charge(r) for r in range(1, 12))
    assert made.dearest.noise_multiplier < made.charge(2).noise_multiplier


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("strategy.weighting=examples",), "strategy.weighting = 'uniform'"),
        (("cohort.selection=weighted",), "selection other than 'weighted'"),
        (("cohort.selection=deadline-aware",), "selection other than 'deadline-aware'"),
        (("cohort.late=fold",), "cohort.late = 'drop'"),
        (("cohort.over_select=1.5",), "cohort.over_select = 1"),
        (("evaluate.clients_every=1",), "privacy.metrics_noise > 0"),
        (("privacy.delta=0.01",), "privacy.delta below 1 / clients.count"),
        (("cohort.selection=uniform", "cohort.fraction=0.005"), "no cohort of that share"),
        (("privacy.min_cohort=5",), "smaller cohorts would be drawn too often"),
        (("privacy.mechanism=banded",), "selection other than 'poisson'"),
        (("privacy.mechanism=banded", "cohort.selection=uniform"), "privacy.bands > 0"),
        (("privacy.bands=4",), "privacy.bands > 0 with privacy.mechanism = 'banded' and only there"),
        (("privacy.mechanism=banded", "privacy.bands=11", "cohort.selection=uniform"), "nobody would be left"),
        (("privacy.mechanism=banded", "privacy.bands=5", "cohort.selection=uniform", "cohort.buffer=5"), "in rounds"),
        (("privacy.mechanism=banded", "privacy.bands=5", "cohort.selection=uniform", "privacy.clip_quantile=0.5"),
         "clip_quantile = 0"),
        (("cohort.buffer=5",), "selection other than 'poisson'"),
    ],
)  # fmt: skip
def test_what_would_make_the_statement_untrue_is_refused_with_the_reason(more: tuple[str, ...], said: str) -> None:
    with pytest.raises(PlanError) as refusal:
        check(plan(*more))
    assert said in str(refusal.value)
    assert "privacy.mode = 'central'" in str(refusal.value)


def test_adaptive_clipping_needs_a_cohort_that_hides_its_bits() -> None:
    with pytest.raises(PlanError, match="cohort"):
        central("clients.count=10", "cohort.fraction=0.2", "privacy.clip_quantile=0.5", "privacy.noise_multiplier=5")


@pytest.mark.parametrize("strategy", ["scaffold", "fednova", "ifca"])
def test_strategies_that_want_more_of_a_client_than_its_update_are_refused(strategy: str) -> None:
    with pytest.raises(PlanError, match="without a bound"):
        build(plan(f"strategy.name={strategy}"))


def test_a_minimum_that_no_round_can_have_is_refused() -> None:
    with pytest.raises(PlanError, match=r"privacy\.min_cohort of at most the updates of a round \(10\)"):
        plan("privacy.min_cohort=11")


def test_poisson_is_for_central_privacy() -> None:
    with pytest.raises(PlanError, match="poisson"):
        load(None, ["cohort.selection=poisson"])
