"""Lower bounds of epsilon: below the truth as often as they say, and not far below."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedpress.errors import PrivacyError
from fedpress.privacy.audit.epsilon import between, chance, one_run
from fedpress.privacy.audit.membership import confidence, likelihood_ratio
from fedpress.privacy.audit.tradeoff import epsilon_of


def test_between_stays_below_a_gaussian_and_comes_close() -> None:
    rng, truth = np.random.default_rng(0), epsilon_of(1.0, 1e-5)
    proofs = [between(rng.normal(1, 1, 2000), rng.normal(0, 1, 2000), 1e-5) for _ in range(10)]
    assert all(p.gaussian <= truth and p.epsilon <= truth for p in proofs)
    assert min(p.mu for p in proofs) > 0.6
    assert min(p.epsilon for p in proofs) > 0.5


def test_between_reaches_the_epsilon_of_randomised_response() -> None:
    """Truth with chance e/(1+e): epsilon 1, pure; no bound may pass it, and this one comes close."""
    rng, p = np.random.default_rng(1), math.e / (1 + math.e)
    said = [(rng.random(20_000) < q).astype(np.float64) for q in (p, 1 - p)]
    assert 0.85 < between(said[0], said[1], 1e-6).epsilon <= 1.0


def test_between_asks_for_trials() -> None:
    with pytest.raises(PrivacyError, match="at least 20 trials"):
        between(np.zeros(5), np.zeros(5), 1e-5)


def test_one_run_is_right_about_randomised_response() -> None:
    """Scores that tell a member with chance e^2/(1+e^2): 2 is the truth."""
    rng, p = np.random.default_rng(2), math.exp(2) / (1 + math.exp(2))
    found = []
    for _ in range(20):
        inside = np.arange(1000) < 500
        told = np.where(rng.random(1000) < p, inside, ~inside) + 1e-6 * rng.random(1000)
        found.append(one_run(told[inside], told[~inside], 1e-5, rng).epsilon)
    assert max(found) <= 2.0
    assert min(found) > 1.2


def test_one_run_proves_nothing_of_noise() -> None:
    rng = np.random.default_rng(3)
    found = [one_run(rng.normal(size=100), rng.normal(size=300), 1e-5, rng).epsilon for _ in range(100)]
    assert np.mean(np.array(found) > 0) <= 0.05


def test_chance_is_the_binomial_where_delta_is_nothing() -> None:
    assert chance(9, 10, 100, 0.0, 0.0) == pytest.approx(11 / 1024)
    assert chance(9, 10, 100, 0.0, 1e-3) > 11 / 1024
    assert chance(0, 10, 100, 3.0, 1e-5) == 1.0


def test_confidence_falls_with_the_loss_and_is_finite() -> None:
    losses = np.array([0.0, 1e-9, 0.1, math.log(2), 3.0, 1e6])
    scaled = confidence(losses)
    assert np.isfinite(scaled).all()
    assert (np.diff(scaled) < 0).all()
    assert scaled[3] == pytest.approx(0.0, abs=1e-12)


def test_the_likelihood_ratio_knows_hard_examples_from_members() -> None:
    """Examples differ in how hard they are, far more than membership does: thresholds fail, the ratio does not."""
    rng, n, k = np.random.default_rng(4), 400, 16
    hard, inside = rng.normal(0, 20, n), np.array([rng.permutation(n) < n // 2 for _ in range(k)])
    inside[k // 2 :] = ~inside[: k // 2]
    shadows = hard + 2.0 * inside + rng.normal(size=(k, n))
    member = np.arange(n) < n // 2
    scores = likelihood_ratio(hard + 2.0 * member + rng.normal(size=n), shadows, inside)
    assert (scores[member] > 0).mean() > 0.75
    assert (scores[~member] < 0).mean() > 0.75
    with pytest.raises(PrivacyError, match="at least one shadow"):
        likelihood_ratio(hard, shadows[:1], inside[:1])
