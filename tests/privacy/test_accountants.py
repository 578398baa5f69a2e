"""The accountants against each other, against Opacus', and against formulas written here."""

from __future__ import annotations

import itertools
import logging
import math

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from fedpress.errors import PrivacyError
from fedpress.privacy import accounting
from fedpress.privacy.accountants import Charge, Charges, epsilon, extended, merged, noise_for

DELTA = 1e-5
GRID = [(0.1, 1.0, 100), (0.01, 0.8, 1000), (0.5, 2.0, 30), (0.05, 1.5, 400), (0.2, 0.7, 5), (0.001, 0.6, 5000)]


def gaussian_epsilon(noise: float, delta: float = DELTA) -> float:
    """Balle and Wang 2018, theorem 8, solved for epsilon."""

    def excess(eps: float) -> float:
        return float(norm.cdf(0.5 / noise - eps * noise) - math.exp(eps) * norm.cdf(-0.5 / noise - eps * noise)) - delta

    return float(brentq(excess, 0.0, 200.0, xtol=1e-10))


def opacus(kind: type, rate: float, noise: float, times: int) -> float:
    accountant = kind()
    accountant.history = [(noise, rate, times)]
    return float(accountant.get_epsilon(DELTA))


def test_the_figures_that_are_known() -> None:
    charge = [Charge(1.0, "poisson", 0.1, 100)]
    assert epsilon(charge, DELTA, "rdp") == pytest.approx(7.90, abs=0.005)
    assert epsilon(charge, DELTA) == pytest.approx(7.05, abs=0.005)
    assert opacus(RDPAccountant, 0.1, 1.0, 100) == pytest.approx(7.90, abs=0.005)
    assert opacus(PRVAccountant, 0.1, 1.0, 100) == pytest.approx(7.06, abs=0.01)


@pytest.mark.filterwarnings("ignore:Optimal order is the")
@pytest.mark.parametrize(("rate", "noise", "times"), GRID)
def test_all_accountants_agree_on_poisson_samples(rate: float, noise: float, times: int) -> None:
    charge = [Charge(noise, "poisson", rate, times)]
    pld, rdp = epsilon(charge, DELTA), epsilon(charge, DELTA, "rdp")
    assert pld < 0.99 * rdp
    assert rdp == pytest.approx(opacus(RDPAccountant, rate, noise, times), rel=0.01)
    assert pld == pytest.approx(opacus(PRVAccountant, rate, noise, times), rel=0.02)
    fine = dp.pld.PLDAccountant().compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), times)
    assert pld == pytest.approx(fine.get_epsilon(DELTA), rel=1e-3)


def test_what_a_device_accounts_for_is_what_this_does() -> None:
    history = (accounting.Steps(1.0, 0.05, 60), accounting.Steps(0.8, 0.1, 10))
    ours = epsilon([Charge(s.noise_multiplier, "poisson", s.sample_rate, s.steps) for s in history], DELTA, "rdp")
    assert accounting.epsilon(history, DELTA) == pytest.approx(ours, rel=1e-3)


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0, 30.0])
def test_without_sampling_it_is_one_gaussian(noise: float) -> None:
    exact = gaussian_epsilon(noise)
    assert epsilon([Charge(noise, "none")], DELTA) == pytest.approx(exact, rel=1e-6)
    assert epsilon([Charge(noise * 5, "none", 1.0, 25)], DELTA) == pytest.approx(exact, rel=1e-6)
    assert epsilon([Charge(noise, "poisson", 1.0)], DELTA) == pytest.approx(exact, rel=1e-6)
    assert epsilon([Charge(noise * 2, "fixed", 1.0)], DELTA) == pytest.approx(exact, rel=1e-6)
    assert exact <= epsilon([Charge(noise, "none")], DELTA, "rdp") < 1.3 * exact


@pytest.mark.parametrize(("rate", "noise"), [(0.1, 1.0), (0.01, 3.0), (0.5, 8.0)])
def test_one_release_of_a_fixed_cohort_is_the_bound_that_was_proved(rate: float, noise: float) -> None:
    """Balle, Barthe, Gaboardi 2018, theorem 9: delta shrinks by the rate at log(1 + rate * (exp(epsilon) - 1))."""
    inner = gaussian_epsilon(noise / 2, DELTA / rate)
    assert epsilon([Charge(noise, "fixed", rate)], DELTA) == pytest.approx(
        math.log1p(rate * math.expm1(inner)), rel=1e-3
    )


@pytest.mark.parametrize(("rate", "noise", "times"), [(0.1, 4.0, 100), (0.01, 2.0, 1000), (0.5, 9.0, 30)])
def test_many_releases_of_fixed_cohorts_lie_between_an_attack_and_renyi(rate: float, noise: float, times: int) -> None:
    stated = epsilon([Charge(noise, "fixed", rate, times)], DELTA)
    # All others send -C, the one who is replaced sends +C: with it the sum is 2C higher, and it is in with the rate.
    attack = epsilon([Charge(noise / 2, "poisson", rate, times)], DELTA)
    assert attack <= stated < 1.25 * attack
    assert stated < epsilon([Charge(noise, "fixed", rate, times)], DELTA, "rdp")


def test_a_history_with_a_fixed_cohort_is_stated_for_replacing() -> None:
    fixed, poisson, whole = Charge(4.0, "fixed", 0.1, 50), Charge(4.0, "poisson", 0.1, 50), Charge(20.0, "none")
    assert epsilon([fixed, whole], DELTA) > epsilon([fixed, whole._replace(noise_multiplier=100.0)], DELTA)
    assert epsilon([fixed, poisson], DELTA) == pytest.approx(epsilon([fixed._replace(times=100)], DELTA), rel=1e-3)
    assert epsilon([fixed, poisson], DELTA) <= epsilon([fixed, poisson], DELTA, "rdp")


@settings(max_examples=15, deadline=None)
@given(
    st.floats(1.0, 20.0),
    st.sampled_from(["poisson", "fixed"]),
    st.floats(0.01, 0.9),
    st.integers(1, 200),
    st.sampled_from([1e-7, 1e-5, 1e-3]),
)
def test_more_noise_fewer_rounds_or_less_sampling_never_cost_more(
    noise: float, sampling: str, rate: float, times: int, delta: float
) -> None:
    charge = Charge(noise, sampling, rate, times)  # type: ignore[arg-type]
    spent = epsilon([charge], delta)
    slack = 1 + 2e-3  # of the discretisation
    assert 0 <= spent <= epsilon([charge], delta, "rdp")
    assert epsilon([charge._replace(noise_multiplier=1.1 * noise)], delta) <= slack * spent
    assert epsilon([charge._replace(rate=0.9 * rate)], delta) <= slack * spent
    assert spent <= slack * epsilon([charge._replace(times=times + 1)], delta)
    assert spent <= slack * epsilon([charge], delta / 2)
    assert spent <= slack * epsilon([charge, Charge(50.0, "none")], delta)


@pytest.mark.parametrize(
    ("target", "charge"),
    [
        (3.0, Charge(1.0, "poisson", 0.1, 100)),
        (1.0, Charge(1.0, "none", 1.0, 40)),
        (8.0, Charge(1.0, "fixed", 0.05, 20)),
        (50.0, Charge(1.0, "poisson", 0.01, 5)),
        (0.05, Charge(1.0, "poisson", 0.01, 5)),
    ],
)
def test_the_noise_found_is_enough_and_little_less_is_not(target: float, charge: Charge) -> None:
    noise = noise_for(target, DELTA, lambda z: [charge._replace(noise_multiplier=z)])
    assert epsilon([charge._replace(noise_multiplier=noise)], DELTA) <= target
    assert epsilon([charge._replace(noise_multiplier=noise * (1 - 2e-3))], DELTA) > target


def test_noise_that_cannot_be_found_is_said() -> None:
    with pytest.raises(PrivacyError, match=r"No noise multiplier up to .* brings epsilon down to 0\.5"):
        noise_for(0.5, DELTA, lambda z: [Charge(z, "none"), Charge(1.0, "none")])
    with pytest.raises(PrivacyError, match="Expected a finite epsilon > 0"):
        noise_for(0.0, DELTA, lambda z: [Charge(z, "none")])


def test_like_charges_are_one_and_order_is_nothing() -> None:
    a, b = Charge(1.0, "poisson", 0.1, 3), Charge(2.0, "none")
    charges: Charges = ()
    for charge in (a, b, a, b, a):
        charges = extended(charges, charge)
    assert charges == (a._replace(times=9), b._replace(times=2))
    assert len({merged(order) for order in itertools.permutations((a, b, a))}) == 1
    assert epsilon((), DELTA) == 0.0


@pytest.mark.parametrize(
    ("charge", "reason"),
    [
        (Charge(0.0, "none"), "noise multiplier > 0"),
        (Charge(math.nan, "none"), "noise multiplier > 0"),
        (Charge(math.inf, "none"), "noise multiplier > 0"),
        (Charge(1.0, "poison", 0.1), "sampling to be one of poisson, fixed, none"),  # type: ignore[arg-type]
        (Charge(1.0, "poisson", 0.0), r"rate in \(0, 1\]"),
        (Charge(1.0, "fixed", 1.5), r"rate in \(0, 1\]"),
        (Charge(1.0, "none", 0.5), "nothing is sampled"),
        (Charge(1.0, "none", 1.0, 0), "at least one release"),
    ],
)
def test_charges_that_mean_nothing_are_refused(charge: Charge, reason: str) -> None:
    with pytest.raises(PrivacyError, match=reason):
        epsilon([charge], DELTA)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_means_nothing_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="0 < delta < 1"):
        epsilon([Charge(1.0, "none")], delta)


def test_next_to_nothing_is_not_nothing() -> None:
    """Divergences that rounding takes below zero must not count as perfect privacy (the library says 0)."""
    charge = Charge(1e4, "poisson", 0.001, 10**5)
    sharp = epsilon([Charge(1e4, "poisson", 0.001)], 1e-12, "rdp")
    assert epsilon([charge], 1e-12, "rdp") > sharp >= 0
    assert 0 < epsilon([Charge(1e4, "none")], 1e-7) < 1e-3


def test_extreme_charges_are_stated_in_bounded_time_and_memory() -> None:
    for noise, sampling, rate in itertools.product((1e-3, 0.3, 1e5), ("poisson", "fixed"), (1e-6, 0.3)):
        assert 0 <= epsilon([Charge(noise, sampling, rate, 1000)], DELTA) < math.inf  # type: ignore[arg-type]


def test_orders_left_out_are_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        epsilon([Charge(1.0123, "poisson", 0.1, 7)], DELTA)
    assert not caplog.records
