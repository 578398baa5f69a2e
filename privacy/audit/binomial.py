"""Counts and what they prove of a probability: the binomial, and the exact limits of Clopper and Pearson (1934).

NumPy has no incomplete beta function, so tails are sums of probabilities, with logarithms of factorials: exact enough
for a hundred thousand trials, and nothing else is needed to be sure of a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError

_HALVINGS = 60


def probabilities(n: int, p: float) -> NDArray[np.float64]:
    """P[X = k] for k = 0..n successes of n trials that succeed with chance ``p``: float64[n + 1]."""
    if p <= 0 or p >= 1:
        out = np.zeros(n + 1)
        out[0 if p <= 0 else n] = 1.0
        return out
    k = np.arange(n + 1)
    chances: NDArray[np.float64] = np.exp(_log_choose(n) + k * math.log(p) + (n - k) * math.log1p(-p))
    return chances


def at_least(k: int, n: int, p: float) -> float:
    """P[X >= k]."""
    return float(min(1.0, probabilities(n, p)[max(0, k) :].sum()))


def at_most(k: int, n: int, p: float) -> float:
    """P[X <= k]."""
    return float(min(1.0, probabilities(n, p)[: k + 1].sum()))


def lower(k: int, n: int, alpha: float) -> float:
    """The least chance under which ``k`` or more successes of ``n`` are not rarer than ``alpha``: a lower limit with
    confidence ``1 - alpha``. Raises PrivacyError for counts that cannot be."""
    _check(k, n)
    return 0.0 if k == 0 else _where(lambda p: at_least(k, n, p) < alpha)


def upper(k: int, n: int, alpha: float) -> float:
    """The greatest chance under which ``k`` or fewer successes of ``n`` are not rarer than ``alpha``."""
    return 1.0 - lower(n - k, n, alpha)


def interval(k: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Both limits, with confidence ``1 - alpha`` together."""
    return lower(k, n, alpha / 2), upper(k, n, alpha / 2)


def _where(rare: Callable[[float], bool]) -> float:
    """Where ``rare``, true for small chances and false for great ones, changes; from below."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rare(middle) else (low, middle)
    return low


@lru_cache(maxsize=8)
def _log_choose(n: int) -> NDArray[np.float64]:
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs: NDArray[np.float64] = factorials[n] - factorials - factorials[::-1]
    return logs


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n or n < 1:
        raise PrivacyError(f"Expected 0 <= successes <= trials and at least one trial, got {k} of {n}.")
