"""How well scores tell members from the rest: the ROC, its area, and the rate of true positives where few are false.

The area's standard error is that of DeLong, DeLong and Clarke-Pearson (1988); a rate's limits are Clopper and
Pearson's. An average over all examples hides those who are given away, so the low end counts most (Carlini et al.
2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError
from fedpress.privacy.audit import binomial

Scores = NDArray[np.float64]
_FEWEST: Final = 2


class Rate(NamedTuple):
    """A share, and its limits with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """An ROC: true positive rates over false ones, both rising from 0 to 1, float64[k] each; and the area below."""

    fpr: Scores
    tpr: Scores
    auc: Rate
    members: int
    others: int

    def at(self, fpr: float) -> Rate:
        """The true positive rate at a false positive rate of at most ``fpr``."""
        found = float(self.tpr[self.fpr <= fpr].max())
        return Rate(found, *binomial.interval(round(found * self.members), self.members))


def curve(members: Scores, others: Scores) -> Curve:
    """Of the scores of members and of others, higher for what looks more like a member. Raises PrivacyError for fewer
    than two of either, and for scores that are not numbers."""
    if min(len(members), len(others)) < _FEWEST:
        raise PrivacyError(f"Expected at least two members and two others, got {len(members)} and {len(others)}.")
    scores = np.concatenate([members, others])
    if np.isnan(scores).any():
        raise PrivacyError("Expected scores that are numbers, got NaN: did the model diverge?")
    order = np.argsort(-scores, kind="stable")
    inside = order < len(members)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores fall together
    tpr = np.append(0.0, np.cumsum(inside)[last] / len(members))
    fpr = np.append(0.0, np.cumsum(~inside)[last] / len(others))
    return Curve(fpr, tpr, _area(members, others), len(members), len(others))


def _area(members: Scores, others: Scores) -> Rate:
    above, below = _beaten(members, others), 1.0 - _beaten(others, members)
    area = float(above.mean())
    error = (above.var(ddof=1) / len(members) + below.var(ddof=1) / len(others)) ** 0.5
    reach = NormalDist().inv_cdf(0.975) * float(error)
    return Rate(area, max(0.0, area - reach), min(1.0, area + reach))


def _beaten(these: Scores, those: Scores) -> Scores:
    """Of each of ``these``: the share of ``those`` that it is above, equal ones counting half."""
    ranked = np.sort(those)
    counts = np.searchsorted(ranked, these, "left") + np.searchsorted(ranked, these, "right")
    shares: Scores = counts / (2 * len(those))
    return shares
