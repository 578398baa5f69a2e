"""Early stopping, and which model is the best: the metric's best so far, and how long ago it was.

With ``patience`` p the run ends once p rounds went by without the metric getting better, by more than ``min_delta``,
than it was when it last did so (Prechelt, *Early stopping, but when?*, 1998, as deep-learning libraries have it); with
``target`` once the metric is as good as that. The best model is the one with the best value, however little better.

A pure function of the values in the rounds' records: a resumed run decides what the other one would have decided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fedpress.sections import Stop

#: Metrics that are better when they are smaller.
_LOWER: Final = ("loss",)


@dataclass(frozen=True)
class Standing:
    """What a run has come to after some rounds; -1: no round yet.

    ``best`` was reached in ``best_round``; ``mark`` is the value that the next improvement is measured from.
    """

    stop: Stop
    round: int = -1
    best: float = math.nan
    best_round: int = -1
    mark: float = math.nan
    mark_round: int = -1

    def after(self, round_: int, value: float) -> Standing:
        """The standing once the metric of the model after ``round_`` is known. What is not finite is no improvement."""
        now = replace(self, round=round_)
        if not math.isfinite(value):
            return now
        if self.best_round < 0 or self._gain(value, self.best) > 0:
            now = replace(now, best=value, best_round=round_)
        if self.mark_round < 0 or self._gain(value, self.mark) > self.stop.min_delta:
            now = replace(now, mark=value, mark_round=round_)
        return now

    @property
    def reason(self) -> str:
        """Why the run should end; "" while it should not."""
        stop = self.stop
        if stop.target and self.best_round >= 0 and self._gain(self.best, stop.target) >= 0:
            return f"{stop.metric} is {self.best:.4g} after round {self.best_round}: the target was {stop.target:g}"
        if stop.patience and self.mark_round >= 0 and self.round - self.mark_round >= stop.patience:
            return f"{stop.metric} has not improved on {self.mark:.4g} for {self.round - self.mark_round} rounds"
        return ""

    def _gain(self, value: float, reference: float) -> float:
        return reference - value if self.stop.metric in _LOWER else value - reference


def remembered(stop: Stop, records: Iterable[Mapping[str, Any]]) -> tuple[Standing, bool]:
    """The standing after these rounds' records, and whether it is the server that measures."""
    rounds, metric = list(records), stop.metric
    served = [(r["round"], _number(r["metrics"][metric])) for r in rounds if metric in r["metrics"]]
    told = [(r["round"] - 1, r["client_metrics"][metric]) for r in rounds if metric in r["client_metrics"]]
    standing = Standing(stop)
    for round_, value in served or told:  # clients measure the model that arrives
        standing = standing.after(round_, value)
    return standing, bool(served)


def _number(value: float | None) -> float:
    """A metric from a record, where one that is not finite is None."""
    return math.nan if value is None else value
