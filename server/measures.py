"""What a run's models are worth: measured by the server or, where it measures none, by clients; and the best of them.

The server measures the model that a round gave; clients measure the one that arrived, and so speak of the round before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedpress.errors import PlanError, closest
from fedpress.params import Tensors
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.stopping import Standing, remembered


class Measures:
    """Of one run. ``whole``: the server holds a whole model, which it can measure."""

    def __init__(self, plan: Plan, whole: bool, listen: events.Listener) -> None:
        self._stop, self._rounds = plan.stop, plan.run.rounds
        self._every = plan.evaluate.server_every if whole else 0
        self._standing = Standing(plan.stop)
        self._served = self._every > 0
        self._listen = listen

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """After a restart: what the rounds' records say."""
        self._standing, self._served = remembered(self._stop, records)

    def due(self, round_: int) -> bool:
        """The plan wants the server to measure the model after this round."""
        return self._every > 0 and (round_ % self._every == 0 or round_ >= self._rounds)

    @property
    def early(self) -> bool:
        """What models are worth may end the run: rounds wait for it, so that the run ends alike on every machine and
        after any crash."""
        return self._stop.early

    @property
    def reason(self) -> str:
        """Why the run should end; "" while it should not."""
        return self._standing.reason

    def by_server(self, round_: int, metrics: Mapping[str, float], model: Tensors) -> None:
        """The model after a round, measured by the server; {} where it has nothing to measure with.

        Raises PlanError if that is not what the plan stops by.
        """
        if self.due(round_):
            self._served = bool(metrics)
        if self._served:
            self._observe(round_, metrics, model)

    def by_clients(self, round_: int, metrics: Mapping[str, float], model: Tensors) -> None:
        """The same, measured by clients: what they measure is theirs to say, and another metric only noted."""
        if not self._served:
            self._observe(round_, metrics, model)

    def _observe(self, round_: int, metrics: Mapping[str, float], model: Tensors) -> None:
        metric = self._stop.metric
        if metric not in metrics:
            if metrics and self._stop.early:
                missing = f"No metric is called '{metric}' (stop.metric). {closest(metric, metrics)}"
                if self._served:
                    raise PlanError(missing)
                self._listen(events.Noted(missing))
            return
        before, self._standing = self._standing, self._standing.after(round_, metrics[metric])
        if self._standing.best_round != before.best_round:
            self._listen(events.BestModel(round_, self._standing.best, model))
