"""Epsilon from below: what an attack that succeeded proves, with a stated confidence.

``between``: a mechanism run many times with and without its canary. The threshold is chosen on one half of the trials
and judged on the other (Jagielski, Ullman, Oprea 2020; limits by Clopper and Pearson, as Nasr et al. 2021). It gives
two bounds: one that holds for any mechanism, and one for mechanisms that claim to be Gaussian (Nasr et al. 2023), which
is tight with far fewer trials.

``one_run``: a single model and many examples, of which a coin put each in or left it out (Steinke, Nasr, Jagielski
2023, theorem 5.2 and appendix D). How many guesses are made is tried for a few numbers; the confidence is shared among
them.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from fedpress.errors import PrivacyError
from fedpress.privacy.audit import binomial
from fedpress.privacy.audit.roc import Scores
from fedpress.privacy.audit.tradeoff import epsilon_of, mu_of

#: Shares of the examples that are guessed: all, and ever fewer of which the attack is surer.
_GUESSED: Final = (1.0, 0.5, 0.25, 0.1, 0.04)
#: Thresholds that the first half is tried with.
_TRIED: Final = 60
_MOST: Final = 60.0
_HALVINGS: Final = 40


class Proof(NamedTuple):
    """Lower bounds. ``epsilon``: of any mechanism, at ``delta``. ``mu``: of one that is Gaussian, in sensitivities per
    standard deviation of its noise; ``gaussian``: the epsilon of that, at the same delta."""

    epsilon: float
    mu: float
    gaussian: float
    delta: float
    confidence: float


class Guesses(NamedTuple):
    """``right`` of ``made`` guesses, among ``candidates`` examples; the epsilon below which that is too unlikely."""

    epsilon: float
    right: int
    made: int
    candidates: int
    delta: float
    confidence: float


def between(present: Scores, absent: Scores, delta: float, confidence: float = 0.99) -> Proof:
    """Of scores of trials with the canary and without, as many of each. Raises PrivacyError for fewer than 20."""
    n = min(len(present), len(absent)) // 2
    if n < 10:
        raise PrivacyError(f"Expected at least 20 trials on each side, got {len(present)} and {len(absent)}.")
    alpha = (1 - confidence) / 4  # two rates for each of the two bounds
    sharp, even = _thresholds(present[:n], absent[:n], delta, alpha)
    epsilon = max(0.0, *_bounds(present[n:], absent[n:], sharp, delta, alpha))
    hits, alarms = _counts(present[n:], absent[n:], even)
    trials, quiet = len(present) - n, len(absent) - n
    mu = mu_of(binomial.upper(alarms, quiet, alpha), binomial.upper(trials - hits, trials, alpha))
    return Proof(epsilon, mu, epsilon_of(mu, delta), delta, confidence)


def one_run(
    members: Scores, others: Scores, delta: float, rng: np.random.Generator, confidence: float = 0.95
) -> Guesses:
    """Of one model's scores. As many of each are drawn as the smaller side has, so that a member is as likely as not.

    Deviation: the theorem wants independent coins; here the two sides are of equal size, and the bound is as good as
    the split between members and others was random.
    """
    n = min(len(members), len(others))
    chosen = np.concatenate([rng.choice(members, n, replace=False), rng.choice(others, n, replace=False)])
    inside = np.arange(2 * n) < n
    shuffled = rng.permutation(2 * n)  # equal scores are in no telling order
    inside = inside[shuffled][np.argsort(-chosen[shuffled], kind="stable")]
    tried = sorted({(k, k) for k in _sizes(n)} | {(k, 0) for k in _sizes(n)})
    alpha = (1 - confidence) / max(1, len(tried))
    best = Guesses(0.0, 0, 0, 2 * n, delta, confidence)
    for top, bottom in tried:
        right = int(inside[:top].sum() + (~inside[2 * n - bottom :]).sum())
        found = _least(right, top + bottom, 2 * n, delta, alpha)
        if found > best.epsilon or not best.made:
            best = Guesses(found, right, top + bottom, 2 * n, delta, confidence)
    return best


def chance(right: int, made: int, candidates: int, epsilon: float, delta: float) -> float:
    """The greatest probability with which a mechanism of (epsilon, delta) lets ``right`` or more of ``made`` guesses
    among ``candidates`` examples be right."""
    likely = binomial.probabilities(made, 1 / (1 + math.exp(-epsilon)))
    beta = float(likely[right:].sum())
    below = np.cumsum(likely[:right][::-1]) / np.arange(1, right + 1)  # P[right > X >= right - i] / i
    return min(1.0, beta + 2 * candidates * delta * float(below.max(initial=0.0)))


def _least(right: int, made: int, candidates: int, delta: float, alpha: float) -> float:
    """The epsilon at which so many right guesses stop being rarer than ``alpha``; from below."""
    if chance(right, made, candidates, 0.0, delta) >= alpha:
        return 0.0
    low, high = 0.0, _MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(right, made, candidates, middle, delta) < alpha else (low, middle)
    return low


def _sizes(n: int) -> list[int]:
    return sorted({max(1, round(share * n)) for share in _GUESSED}) if n else []


def _thresholds(present: Scores, absent: Scores, delta: float, alpha: float) -> tuple[float, float]:
    """Where the first half's bound is greatest, and where both errors together are least."""
    every = np.unique(np.concatenate([present, absent]))
    candidates = every[:: max(1, len(every) // _TRIED)]
    sharp = max(candidates, key=lambda at: max(_bounds(present, absent, float(at), delta, alpha)))
    errors = [
        (np.count_nonzero(present < at) / len(present)) + np.count_nonzero(absent >= at) / len(absent)
        for at in candidates
    ]
    return float(sharp), float(candidates[int(np.argmin(errors))])


def _bounds(present: Scores, absent: Scores, at: float, delta: float, alpha: float) -> tuple[float, float]:
    """Epsilon by true positives over false ones, and by true negatives over missed ones."""
    hits, alarms = _counts(present, absent, at)
    m, n = len(present), len(absent)
    least_hits, least_calm = binomial.lower(hits, m, alpha), binomial.lower(n - alarms, n, alpha)
    return _ratio(least_hits, 1 - least_calm, delta), _ratio(least_calm, 1 - least_hits, delta)


def _counts(present: Scores, absent: Scores, at: float) -> tuple[int, int]:
    return int(np.count_nonzero(present >= at)), int(np.count_nonzero(absent >= at))


def _ratio(more: float, less: float, delta: float) -> float:
    return math.log((more - delta) / less) if more - delta > less > 0 else 0.0
