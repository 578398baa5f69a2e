"""Rounds by cohorts: so many clients are invited at once, and the round closes when they are done, or at a deadline.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data". ``over_select``,
``deadline_s`` and ``min_updates`` are those of Bonawitz et al. 2019, "Towards Federated Learning at Scale"; but what
comes late is not thrown away where ``max_staleness`` lets it count into a later round (semi-synchronous rounds). It
counts there, but not towards that round's own cohort. A client at work on an earlier round is not invited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedpress.server.coordinator import Coordinator
from fedpress.server.leases import Action, Fate, Lease, Note, Phase, count


@dataclass
class Cohorts(Coordinator):
    """See the module's docstring."""

    def _begin(self, now: float) -> list[Action]:
        self.phase = Phase.GATHERING
        return self._gather(now)

    def _launch(self, now: float) -> list[Action]:
        return self._invite(now, math.ceil(self.target * self.rules.over_select))

    def _fill(self, now: float) -> list[Action]:
        """Whoever comes while a round is open may fill the place of one that was refused."""
        own = self._own()
        missing = self.target - count(own, Fate.OPEN) - count(own, Fate.COUNTED)
        return self._invite(now, missing) if missing > 0 else []

    def _replace(self, now: float) -> list[Action]:
        """A client failed: another may take its place."""
        return self._invite(now, 1)

    def _ended(self, lease: Lease, now: float) -> list[Action]:
        closing = self._check(now)
        if closing or lease.fate is Fate.COUNTED or lease.round < self.round:
            return closing
        replacement, own = self._replace(now), self._own()
        if replacement or count(own, Fate.OPEN):
            return replacement
        if self._counted() >= self.rules.min_updates:
            return self._close()
        return [] if self._open() else self._unwilling(own)

    def _check(self, now: float) -> list[Action]:  # noqa: ARG002 - other pacings need it
        """Close the round if its own cohort is complete, or has nobody left at work."""
        own = self._own()
        counted = count(own, Fate.COUNTED)
        full = counted >= self.target
        exhausted = not count(own, Fate.OPEN) and counted >= self.rules.min_updates
        return self._close() if full or exhausted else []

    def _wait(self, now: float) -> list[Action]:
        """At the deadline, close the round, or extend it when too few updates are in."""
        if now < self.deadline:
            return []
        counted, least = self._counted(), self.rules.min_updates
        if counted >= least:
            return self._close()
        note = Note(f"round {self.round}: deadline passed with {counted} of at least {least} updates; extended")
        return [note, *self._prolong(now)]

    def _prolong(self, now: float) -> list[Action]:
        """A new deadline; everybody here may join, also who was refused, or declined."""
        self._extend(now)
        return self._invite(now, len(self.names))
