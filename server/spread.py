"""How a measure is spread over clients: mean, standard deviation, worst decile. Every client counts once.

A mean over examples hides the clients that have few of them or fare badly; fairness and personalisation are about
those (Li et al. 2020, "Fair Resource Allocation in Federated Learning", reports the same three).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean, pstdev


@dataclass(frozen=True)
class Spread:
    """Of a measure of which more is better. ``worst_decile``: the mean of the lowest tenth of the clients, rounded
    down, at least one."""

    mean: float
    deviation: float
    worst_decile: float
    clients: int


def tenth(clients: int) -> int:
    """How many clients are the worst tenth."""
    return max(1, clients // 10)


def spread(values: Collection[float]) -> Spread | None:
    """Of one value per client; None without any."""
    if not values:
        return None
    lowest = sorted(values)[: tenth(len(values))]
    return Spread(fmean(values), pstdev(values), fmean(lowest), len(values))
