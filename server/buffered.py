"""Asynchronous pacing: no cohorts, a new version after every so many updates.

FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation"): whenever a client is idle and
fewer than ``concurrency`` are at work, one is invited, on the newest version. The round closes once ``buffer`` updates
are counted, whichever versions they build on, and leases at work go on into the next. ``buffer`` 1 is FedAsync (Xie et
al. 2019, "Asynchronous Federated Optimization"), in deltas.

Deviations. A client gives at most one update per version, so that few fast clients do not train on their own echo.
Where that leaves nobody to invite and nothing open, the round closes with what it has, if that is ``min_updates``. A
lease has ``deadline_s`` of its own: a client that vanished frees its place, and is invited again when it calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.server.coordinator import Coordinator
from fedpress.server.leases import Action, Lease, Phase


@dataclass
class Buffered(Coordinator):
    """See the module's docstring. ``deadline`` is when clients that were refused, or declined, may be invited anew."""

    renews: ClassVar[bool] = True

    @property
    def due(self) -> float:
        """When the first lease's time is over, or those who were refused may be asked again."""
        if self.phase is not Phase.TRAINING:
            return super().due
        times = [self.deadline, *(self._until(lease) for lease in self._open())]
        return min([*times, self.regroup] if self._waiting_for else times)

    def _begin(self, now: float) -> list[Action]:
        self.phase = Phase.TRAINING
        self.deadline = now + self.rules.deadline_s
        return self._check(now)

    def _launch(self, now: float) -> list[Action]:
        return self._check(now)

    def _fill(self, now: float) -> list[Action]:
        return self._check(now)

    def _ended(self, lease: Lease, now: float) -> list[Action]:  # noqa: ARG002 - all ends are alike
        return self._check(now)

    def _gather(self, now: float) -> list[Action]:
        """Only the first round waits for clients; one that a restart found between two versions goes on."""
        return super()._gather(now) if self.round == 1 else self._begin(now)

    def _check(self, now: float) -> list[Action]:
        """Close the round if the buffer is full; else fill free places; else close it where nothing moves any more."""
        counted = self._counted()
        if self.held:
            return []
        if counted >= self.rules.buffer:
            return self._close()
        if self._regrouping(now):
            return []
        busy = self.at_work()
        free = self.rules.concurrency(len({*self._present(now), *busy})) - len(busy)
        invited = self._invite(now, free) if free > 0 else []
        if invited or busy:
            return invited
        if counted >= self.rules.min_updates:
            return self._close()
        return self._unwilling(self.leases.values()) if self.leases else []

    def _wait(self, now: float) -> list[Action]:
        """Let old leases go, and ask those again who were refused, or declined."""
        old = [lease for lease in self._open() if now >= self._until(lease)]
        lapses = [self._lapse(lease, f"nothing came within {self.rules.deadline_s:g} s") for lease in old]
        for lease in old:
            self.seen.pop(lease.client, None)
        if now >= self.deadline:
            self._extend(now)
        return [*lapses, *self._check(now)]

    def _until(self, lease: Lease) -> float:
        return super()._until(lease) if lease.evaluate else self.since[lease.id] + self.rules.deadline_s

    def _regrouping(self, now: float) -> bool:
        """After a restart, idle clients have some time to call before a choice is made among those who have."""
        return now < self.regroup and bool(self._waiting_for)

    @property
    def _waiting_for(self) -> set[str]:
        """Idle clients that have not called since the restart."""
        return self.names.keys() - self.seen.keys() - set(self.at_work())
