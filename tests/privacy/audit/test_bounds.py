"""Exact limits, the Gaussian's trade-off and the ROC, against scipy, scikit-learn and the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedpress.errors import PrivacyError
from fedpress.privacy.audit import binomial, roc
from fedpress.privacy.audit.tradeoff import allowed, delta_of, epsilon_of, mu_of


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 100), (100, 100), (3, 5000)])
def test_limits_are_those_of_clopper_and_pearson(k: int, n: int) -> None:
    low = stats.beta.ppf(0.01, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(0.99, k + 1, n - k) if k < n else 1.0
    assert binomial.lower(k, n, 0.01) == pytest.approx(low, abs=1e-9)
    assert binomial.upper(k, n, 0.01) == pytest.approx(high, abs=1e-9)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(PrivacyError, match="11 of 10"):
        binomial.lower(11, 10, 0.05)


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
def test_the_gaussian_is_exact(mu: float) -> None:
    """delta is the mass by which one side exceeds exp(epsilon) times the other, by numerical integration."""
    x = np.linspace(-12, 12 + mu, 400_001)
    for epsilon in (0.0, 0.5, 3.0):
        excess = np.maximum(0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))
        assert delta_of(mu, epsilon) == pytest.approx(float(np.trapezoid(excess, x)), abs=1e-7)
    assert delta_of(mu, epsilon_of(mu, 1e-5)) == pytest.approx(1e-5, rel=1e-6)


def test_the_epsilon_of_a_gaussian_is_that_of_the_literature() -> None:
    assert epsilon_of(1.0, 1e-5) == pytest.approx(4.377, abs=1e-3)
    assert epsilon_of(0.0, 1e-5) == 0.0
    with pytest.raises(PrivacyError, match="mu inf"):
        epsilon_of(math.inf, 1e-5)


def test_rates_of_a_gaussian_give_its_mu_and_stay_below_its_epsilon() -> None:
    at = np.linspace(-3, 4, 29)
    fpr, tpr = stats.norm.sf(at), stats.norm.sf(at, 1.0)
    assert [mu_of(a, 1 - b) for a, b in zip(fpr, tpr, strict=True)] == pytest.approx([1.0] * 29)
    assert (tpr <= allowed(fpr, epsilon_of(1.0, 1e-5), 1e-5) + 1e-12).all()
    assert mu_of(0.6, 0.6) == 0.0


def test_the_area_and_its_error_are_right() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(1, 1, 60), rng.normal(0, 1, 90)) for _ in range(300)]
    curves = [roc.curve(*draw) for draw in draws]
    first = draws[0]
    assert curves[0].auc.value == pytest.approx(roc_auc_score([1] * 60 + [0] * 90, np.concatenate(first)))
    assert np.trapezoid(curves[0].tpr, curves[0].fpr) == pytest.approx(curves[0].auc.value)
    truth = stats.norm.cdf(1 / math.sqrt(2))
    assert 0.91 < np.mean([c.auc.low <= truth <= c.auc.high for c in curves]) < 0.98


def test_equal_scores_are_no_better_than_chance_and_faults_are_named() -> None:
    same = roc.curve(np.zeros(10), np.zeros(30))
    assert same.auc.value == 0.5
    assert same.at(0.01).value == 0.0
    with pytest.raises(PrivacyError, match="diverge"):
        roc.curve(np.array([math.nan, 1.0]), np.zeros(3))
    with pytest.raises(PrivacyError, match="at least two"):
        roc.curve(np.zeros(1), np.zeros(3))
