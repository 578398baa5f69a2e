"""What a claim allows an attack to reach: the trade-off between false alarms and misses.

    (epsilon, delta)    TPR <= exp(epsilon) FPR + delta, and the same of misses (Kairouz, Oh, Viswanath 2015)
    Gaussian            a noise of ``z`` times the sensitivity is mu = 1/z: no attack tells the two sides apart better
                        than N(0, 1) from N(mu, 1) (Dong, Roth, Su 2022)

Between the two: the exact delta of a Gaussian at an epsilon (Balle and Wang 2018, theorem 8).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError

_NORMAL: Final = NormalDist()
_HALVINGS: Final = 100
_MOST_MU: Final = 1e4
_LEAST: Final = 1e-300


def allowed(fpr: NDArray[np.float64], epsilon: float, delta: float) -> NDArray[np.float64]:
    """The greatest true positive rate that (epsilon, delta) allows at each false positive rate: float64, as ``fpr``."""
    up = math.exp(min(epsilon, 700.0)) * fpr + delta
    down = 1.0 - math.exp(-epsilon) * (1.0 - delta - fpr)
    return np.clip(np.minimum(up, down), 0.0, 1.0)


def delta_of(mu: float, epsilon: float) -> float:
    """The exact delta at ``epsilon`` of a Gaussian mechanism whose sensitivity is ``mu`` standard deviations."""
    if mu <= 0:
        return 0.0
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return max(0.0, _below(a) - math.exp(epsilon + _log_below(b)))


def epsilon_of(mu: float, delta: float) -> float:
    """The exact epsilon at ``delta`` of the same. Raises PrivacyError for a ``mu`` without bound or a delta outside
    (0, 1)."""
    if not (0 <= mu <= _MOST_MU and 0 < delta < 1):
        raise PrivacyError(f"Expected 0 <= mu <= {_MOST_MU:g} and 0 < delta < 1, got mu {mu:g} and delta {delta:g}.")
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(mu, middle) > delta else (low, middle)
    return high


def mu_of(fpr: float, fnr: float) -> float:
    """The least ``mu`` with which a Gaussian allows an attack of these rates; 0.0 for one no better than chance."""
    if fpr + fnr >= 1:
        return 0.0
    return -_NORMAL.inv_cdf(max(fpr, _LEAST)) - _NORMAL.inv_cdf(max(fnr, _LEAST))


def _below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_below(x: float) -> float:
    """log P[N(0, 1) <= x]; far out by the first terms of Mills' ratio."""
    if x > -30:
        return math.log(_below(x))
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(-1 / (x * x))
