"""Who works on what, and when a round is over: a pure state machine. No sockets, clocks, files or tensors.

Every method is one event. It takes the time as ``now`` (seconds on any monotonic clock) and answers or returns
actions for its driver (``server.federation``) to carry out. Faults are tested here by the thousand, without a
network.

    GATHERING --enough clients present--> TRAINING --cohort counted, or deadline--> STEPPING --stepped()--> GATHERING
    ... after the last round:  (EVALUATING --all answered, or deadline-->)  FINISHED

A lease (ticket) is made for every invited client when the round opens, in one go, so that it can be made durable in one
transaction; polling only hands it out. Each ends exactly once: counted, rejected, declined, or stale.

It is stale when its round closes, or with ``max_staleness`` so many rounds later: then rounds are semi-synchronous
(over-selection and a deadline as in Bonawitz et al. 2019, "Towards Federated Learning at Scale"; but a late update is
not thrown away). It counts into the round in which it comes, not towards that round's own cohort. A client at work on
an earlier round is not invited; one that asks for work has lost what it had, and that lease is stale at once.

With ``sampled`` rules a round's cohort is drawn once, from all that are willing, and nobody takes the place of one that
fails: privacy that is amplified by sampling holds for that draw alone. A cohort may then be empty.

``server.buffered`` is the other way to pace a run: without cohorts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from fedpress.errors import Refused
from fedpress.server.leases import (
    Action,
    Carried,
    Fate,
    Finish,
    Grant,
    Hold,
    Issue,
    Lapse,
    Lease,
    Note,
    Over,
    Phase,
    Rules,
    Step,
)
from fedpress.server.selection.candidate import Candidate

__all__ = [
    "Action", "Carried", "Coordinator", "Fate", "Finish", "Grant", "Hold", "Issue", "Lapse", "Lease", "Note", "Over",
    "Phase", "Rules", "Step",
]  # fmt: skip


@dataclass
class Coordinator:
    """See the module's docstring. ``new_id`` makes ticket ids; ``names`` gives clients the order selection draws in.

    ``candidate(client, name)`` is what is known of a client when somebody is to be invited. ``here(name, round, now)``
    is for simulations, which know who is there; without it, a client is present for a while after it called.
    ``may(client, name, round)``: whether a client may be invited at all, such as by what is left of its privacy budget.
    """

    rules: Rules
    new_id: Callable[[], str]
    candidate: Callable[[str, str], Candidate] = lambda _, name: Candidate(name)
    here: Callable[[str, int, float], bool] | None = None
    may: Callable[[str, str, int], bool] = lambda *_: True
    held: bool = False  # no round opens; without cohorts, nobody is invited
    round: int = 1
    phase: Phase = Phase.GATHERING
    deadline: float = math.inf
    regroup: float = -math.inf
    target: int = 0
    names: dict[str, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)  # open, or ended in the current round
    since: dict[str, float] = field(default_factory=dict)  # when an open lease was made, or handed out
    #: An open lease that was not handed out when its round closed is one of the next.
    renews: ClassVar[bool] = False

    # -- events ---------------------------------------------------------------------------------------------------

    def enrolled(self, client: str, name: str, now: float) -> list[Action]:
        """A client joined, or came back."""
        self.names[client] = name
        self.seen[client] = now
        return self._come(now)

    def met(self, client: str, now: float) -> list[Action]:
        """A client asks for work: it counts as present for ``rules.presence_s``, and works on no earlier round."""
        self.seen[client] = now
        lost = [lease for lease in self._open() if lease.client == client and lease.round < self.round]
        lapses = [self._lapse(lease, f"lost its work of round {lease.round}: it asks for more") for lease in lost]
        return [*lapses, *self._come(now)]

    def poll(self, client: str, now: float) -> Grant | Hold | Over:
        """What ``client`` should do now. Asking twice gives the same lease twice."""
        if self.phase is Phase.FINISHED:
            return Over("the run is finished")
        if self.phase in (Phase.TRAINING, Phase.EVALUATING):
            for lease in self._open():
                if lease.client == client and lease.round == self.round:
                    if not lease.handed:
                        self.leases[lease.id] = lease = replace(lease, handed=True)
                        self.since[lease.id] = now
                    return Grant(lease, max(0.0, self._until(lease) - now))
        return Hold(f"round {self.round} is {self.phase.value}")

    def admit(self, ticket: str, client: str, archived: Lease | None = None) -> Lease:
        """The lease an update belongs to, open or already counted. Raises Refused for all others.

        ``archived`` is what the store knows of a ticket that ended in an earlier round.
        """
        lease = self.leases.get(ticket, archived)
        if lease is None or lease.client != client:
            raise Refused("FAULT_UNKNOWN_TICKET", f"No ticket '{ticket[:40]}' was issued to this client.")
        if lease.fate in (Fate.OPEN, Fate.COUNTED):
            return lease
        if lease.fate is Fate.STALE:
            raise Refused(
                "FAULT_STALE_ROUND", f"The ticket of round {lease.round} has ended; the run is in round {self.round}."
            )
        raise Refused("FAULT_UNKNOWN_TICKET", f"The ticket was {lease.fate.value} before.")

    def counted(self, ticket: str, now: float) -> list[Action]:
        """The update is durable and folded; its client is here, however long it trained."""
        if ticket in self.leases:
            self.seen[self.leases[ticket].client] = now
        return self._end(ticket, Fate.COUNTED, now)

    def rejected(self, ticket: str, now: float) -> list[Action]:
        """The update was malformed: its client is out of this round, another may be invited."""
        return self._end(ticket, Fate.REJECTED, now)

    def declined(self, ticket: str, now: float) -> list[Action]:
        """The client gave its ticket back."""
        return self._end(ticket, Fate.DECLINED, now)

    def lapsed(self, ticket: str, reason: str, now: float) -> list[Action]:
        """The update cannot be folded any more, whatever comes."""
        lapses = [self._lapse(lease, reason) for lease in self._open() if lease.id == ticket]
        return [*lapses, *self._come(now)]

    def closing(self) -> Carried:
        """What committing the current round does to open leases: to be made durable with it, before ``stepped``."""
        ended, renewed = [], []
        for lease in self._open():
            if self.round >= self.rules.rounds or not (lease.handed or self.renews):
                ended.append(replace(lease, fate=Fate.STALE))
            elif not lease.handed:
                renewed.append(replace(lease, round=self.round + 1))
            elif lease.round + self.rules.max_staleness <= self.round:
                ended.append(replace(lease, fate=Fate.STALE))
        return Carried(tuple(ended), tuple(renewed))

    def stepped(self, now: float) -> list[Action]:
        """The round is committed."""
        ended, renewed = self.closing()
        gone = {lease.id for lease in ended}
        self.leases = {lease.id: lease for lease in self._open() if lease.id not in gone}
        self.leases.update({lease.id: lease for lease in renewed})
        self.since = {ticket: self.since[ticket] for ticket in self.leases}
        self.since.update({lease.id: now for lease in renewed})
        if self.round < self.rules.rounds:
            self.round += 1
            return self._begin(now)
        return self._evaluate(now) if self.rules.final_evaluation else self._finish("all rounds are done")

    def tick(self, now: float) -> list[Action]:
        """Time passed: rounds, and leases, may be over."""
        if self.phase is Phase.GATHERING:
            return self._gather(now)
        if self.phase is Phase.EVALUATING and now >= self.deadline:
            return self._finish("all rounds are done; not every client evaluated the last model")
        return self._wait(now) if self.phase is Phase.TRAINING else []

    def stop(self, reason: str) -> list[Action]:
        """End the run early."""
        return self._finish(reason)

    @property
    def due(self) -> float:
        """When ``tick`` has something to do next; infinity, or the past, while only clients can move the run."""
        return self.regroup if self.phase is Phase.GATHERING else self.deadline

    # -- restart --------------------------------------------------------------------------------------------------

    def restore(
        self, round_: int, phase: Phase, target: int, leases: Iterable[Lease], names: Mapping[str, str], now: float
    ) -> None:
        """Continue where a store says the run stood: ``leases`` are open, or ended in round ``round_``. Deadlines start
        anew; clients count as absent until they call."""
        self.round, self.phase, self.target = round_, phase, target
        self.names, self.seen = dict(names), {}
        self.leases = {lease.id: lease for lease in leases}
        self.since = dict.fromkeys(self.leases, now)
        self.deadline = now + self.rules.deadline_s if phase in (Phase.TRAINING, Phase.EVALUATING) else math.inf
        self.regroup = now + self.rules.regroup_s

    def resume_actions(self, now: float) -> list[Action]:
        """What must happen first after ``restore``: a round that was complete when the server died is closed now."""
        if self.phase is Phase.EVALUATING and not self._open():
            return self._finish("all rounds are done")
        return self._check(now) if self.phase is Phase.TRAINING else []

    # -- how rounds are paced: what ``Buffered`` does in another way --------------------------------------------------

    def _begin(self, now: float) -> list[Action]:
        """A version was published and there are more rounds."""
        self.phase = Phase.GATHERING
        return self._gather(now)

    def _launch(self, now: float) -> list[Action]:
        """Enough clients are here."""
        if not self.rules.sampled:
            return self._invite(now, math.ceil(self.target * self.rules.over_select))
        invited = self._invite(now, self.target)
        self.target = len(self._own())  # of Poisson cohorts only known now
        return invited or self._close()

    def _fill(self, now: float) -> list[Action]:
        """Whoever comes while a round is open may fill the place of one that was refused."""
        if self.rules.sampled:
            return []
        own = self._own()
        missing = self.target - _count(own, Fate.OPEN) - _count(own, Fate.COUNTED)
        return self._invite(now, missing) if missing > 0 else []

    def _ended(self, lease: Lease, now: float) -> list[Action]:
        """A lease ended in an open round."""
        closing = self._check(now)
        if closing or lease.fate is Fate.COUNTED or lease.round < self.round:
            return closing
        replacement, own = [] if self.rules.sampled else self._invite(now, 1), self._own()
        if replacement or _count(own, Fate.OPEN):
            return replacement
        if self._counted() >= self.rules.min_updates:
            return self._close()
        return [] if self._open() else self._unwilling(own)

    def _check(self, now: float) -> list[Action]:  # noqa: ARG002 - Buffered needs it
        """Close the round if its own cohort is complete, or has nobody left at work."""
        own = self._own()
        counted = _count(own, Fate.COUNTED)
        full = counted >= self.target
        exhausted = not _count(own, Fate.OPEN) and counted >= self.rules.min_updates
        return self._close() if full or exhausted else []

    def _wait(self, now: float) -> list[Action]:
        """At the deadline, close the round, or extend it when too few updates are in."""
        if now < self.deadline:
            return []
        counted, least = self._counted(), self.rules.min_updates
        if counted >= least:
            return self._close()
        note = Note(f"round {self.round}: deadline passed with {counted} of at least {least} updates; extended")
        if self.rules.sampled:  # who was drawn stays drawn
            self.deadline = now + self.rules.deadline_s
            return [note, *self._invite(now, least, {lease.client for lease in self._own()})]
        self._extend(now)
        return [note, *self._invite(now, len(self.names))]

    def _until(self, lease: Lease) -> float:  # noqa: ARG002 - Buffered needs it
        """When a lease's time is over."""
        return self.deadline

    # -- inside ---------------------------------------------------------------------------------------------------

    def at_work(self) -> tuple[str, ...]:
        """Clients with an open lease."""
        return tuple(lease.client for lease in self._open())

    def open_tickets(self) -> set[str]:
        """The tickets that an update may still come for."""
        return {lease.id for lease in self._open()}

    def _open(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.fate is Fate.OPEN]

    def _own(self) -> list[Lease]:
        """The leases of the current round."""
        return [lease for lease in self.leases.values() if lease.round == self.round]

    def _counted(self) -> int:
        """Updates folded into the current round, late ones among them."""
        return _count(self.leases.values(), Fate.COUNTED)

    def _present(self, now: float) -> list[str]:
        if self.here is not None:
            return [c for c, name in self.names.items() if self.here(name, self.round, now)]
        return [c for c, at in self.seen.items() if now - at <= self.rules.presence_s]

    def _come(self, now: float) -> list[Action]:
        """Somebody is here."""
        if self.phase is Phase.TRAINING:
            return self._fill(now)
        return self._gather(now) if self.phase is Phase.GATHERING else []

    def _willing(self, now: float) -> list[str]:
        """Present clients that may be invited, in the order of their names."""
        present = sorted(self._present(now), key=self.names.__getitem__)
        require = self.rules.require
        able = [c for c in present if self.may(c, self.names[c], self.round)]
        return [c for c in able if self.candidate(c, self.names[c]).meets(require)] if require else able

    def _gather(self, now: float) -> list[Action]:
        if self.held:
            return []
        busy, present = set(self.at_work()), self._present(now)
        idle = [client for client in present if client not in busy]
        needed = max(self.rules.min_updates, self.rules.min_clients if self.round == 1 else 1)
        if now < self.regroup:
            needed = max(needed, len(self.names.keys() - busy))
        if len(idle if self.here is None else self.seen.keys() - busy) < needed:
            return []
        willing = [client for client in self._willing(now) if client not in busy]
        if len(willing) < max(1, self.rules.min_updates):
            return []
        if self.rules.sampled:
            target = self.rules.cohort(len(willing))
            if target < max(1, self.rules.min_updates) or len(willing) < self.rules.pool:
                return []
        else:
            target = min(max(self.rules.cohort(len(busy.union(present))), self.rules.min_updates), len(willing))
        self.phase, self.target = Phase.TRAINING, target
        self.deadline = now + self.rules.deadline_s
        return self._launch(now)

    def _invite(self, now: float, count: int, among: Container[str] | None = None) -> list[Action]:
        """Lease work to clients that are here and idle, and have not had their share of this round; to all of
        ``among`` in place of a draw."""
        own = self._own()
        out = set(self.at_work()) | {lease.client for lease in own if lease.fate is not Fate.STALE}
        counted = {lease.client for lease in self.leases.values() if lease.fate is Fate.COUNTED}
        if among is not None:
            out = counted.union(self.at_work())
        elif self.rules.once:
            out |= counted
        pool = {self.names[c]: c for c in self._willing(now) if c not in out}
        candidates = [self.candidate(client, name) for name, client in pool.items()]
        if among is None:
            chosen = self.rules.select(candidates, min(count, len(pool)), self.round, len(own))
        else:
            chosen = [name for name, client in pool.items() if client in among]
        return self._issue((Lease(self.new_id(), pool[name], self.round) for name in chosen), now, not own)

    def _issue(self, made: Iterable[Lease], now: float, opens: bool) -> list[Action]:
        leases = tuple(made)
        self.leases.update({lease.id: lease for lease in leases})
        self.since.update({lease.id: now for lease in leases})
        return [Issue(self.round, leases, opens)] if leases else []

    def _end(self, ticket: str, fate: Fate, now: float) -> list[Action]:
        lease = self.leases.get(ticket)
        if lease is None or lease.fate is not Fate.OPEN:
            return []
        self.leases[ticket] = lease = replace(lease, fate=fate)
        if self.phase is Phase.EVALUATING:
            return self._finish("all rounds are done") if not self._open() else []
        return self._ended(lease, now) if self.phase is Phase.TRAINING else []

    def _lapse(self, lease: Lease, reason: str = "") -> Action:
        self.leases[lease.id] = stale = replace(lease, fate=Fate.STALE)
        return Lapse(stale, reason)

    def _extend(self, now: float) -> None:
        """A new deadline; who was refused, or declined, may be invited once more."""
        self.deadline = now + self.rules.deadline_s
        kept = (Fate.OPEN, Fate.COUNTED)
        self.leases = {ticket: lease for ticket, lease in self.leases.items() if lease.fate in kept}

    def _unwilling(self, asked: Iterable[Lease]) -> list[Action]:
        """Nobody is left: end the run if that is because all of ``asked`` declined."""
        declined = all(lease.fate is Fate.DECLINED for lease in asked)
        return self._finish(f"every client declined round {self.round}") if declined else []

    def _close(self) -> list[Action]:
        self.phase = Phase.STEPPING
        self.deadline = math.inf
        return [Step(self.round)]

    def _evaluate(self, now: float) -> list[Action]:
        clients = sorted(self._present(now), key=lambda c: self.names[c])
        if not clients:
            return self._finish("all rounds are done")
        self.phase = Phase.EVALUATING
        self.deadline = now + min(self.rules.deadline_s, self.rules.presence_s)
        return self._issue((Lease(self.new_id(), client, self.round, evaluate=True) for client in clients), now, True)

    def _finish(self, reason: str) -> list[Action]:
        lapses = [self._lapse(lease) for lease in self._open()]
        self.phase = Phase.FINISHED
        self.deadline = math.inf
        return [*lapses, Finish(reason)]


def _count(leases: Iterable[Lease], fate: Fate) -> int:
    return sum(lease.fate is fate for lease in leases)
