"""Who works on what, and when a round is over: a pure state machine. No sockets, clocks, files or tensors.

Every method is one event. It takes the time as ``now`` (seconds on any monotonic clock) and answers or returns
actions for its driver (``server.federation``) to carry out. Faults are tested here by the thousand, without a
network.

    GATHERING --enough clients present--> TRAINING --cohort counted, or deadline--> STEPPING --stepped()--> GATHERING
    ... after the last round:  (EVALUATING --all answered, or deadline-->)  FINISHED

A lease (ticket) is made for every invited client when the round opens, in one go, so that it can be made durable in one
transaction; polling only hands it out. Each ends exactly once: counted, rejected, declined, or stale when its round
closes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from fedpress.errors import Refused
from fedpress.server.selection.candidate import Candidate, Select


class Phase(Enum):
    """Where the run stands."""

    GATHERING = "gathering"
    TRAINING = "training"
    STEPPING = "stepping"
    EVALUATING = "evaluating"
    FINISHED = "finished"


class Fate(Enum):
    """How a lease stands or ended."""

    OPEN = "open"
    COUNTED = "counted"
    REJECTED = "rejected"
    DECLINED = "declined"
    STALE = "stale"


@dataclass(frozen=True)
class Rules:
    """What the plan says about rounds. ``cohort`` maps the number of present clients to the size wanted.

    A client is present for ``presence_s`` after it called. After a restart, the next round waits up to ``regroup_s``
    for the clients that were enrolled: they find the server again at their own pace.
    """

    rounds: int
    cohort: Callable[[int], int]
    select: Select
    require: Sequence[str] = ()
    min_clients: int = 1
    min_updates: int = 1
    over_select: float = 1.0
    deadline_s: float = 600.0
    presence_s: float = 90.0
    regroup_s: float = 30.0
    final_evaluation: bool = False


@dataclass(frozen=True)
class Lease:
    """One client's invitation to one round."""

    id: str
    client: str
    round: int
    evaluate: bool = False
    fate: Fate = Fate.OPEN


@dataclass(frozen=True)
class Issue:
    """Action: make these leases durable, then wake whoever polls."""

    round: int
    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Step:
    """Action: aggregate the round and call ``stepped``."""

    round: int


@dataclass(frozen=True)
class Finish:
    """Action: the run is over."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Action: tell people."""

    text: str


Action = Issue | Step | Finish | Note


@dataclass(frozen=True)
class Grant:
    """Answer to a poll: work on this lease."""

    lease: Lease
    seconds_left: float


@dataclass(frozen=True)
class Hold:
    """Answer to a poll: nothing yet."""

    reason: str


@dataclass(frozen=True)
class Over:
    """Answer to a poll: the run is finished."""

    reason: str


@dataclass
class Coordinator:
    """See the module's docstring. ``new_id`` makes ticket ids; ``names`` gives clients the order selection draws in.

    ``candidate(client, name)`` is what is known of a client when somebody is to be invited. ``here(name, round, now)``
    is for simulations, which know who is there; without it, a client is present for a while after it called.
    """

    rules: Rules
    new_id: Callable[[], str]
    candidate: Callable[[str, str], Candidate] = lambda _, name: Candidate(name)
    here: Callable[[str, int, float], bool] | None = None
    held: bool = False  # no round opens
    round: int = 1
    phase: Phase = Phase.GATHERING
    deadline: float = math.inf
    regroup: float = -math.inf
    target: int = 0
    names: dict[str, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)  # of the current round only

    # -- events ---------------------------------------------------------------------------------------------------

    def enrolled(self, client: str, name: str, now: float) -> list[Action]:
        """A client joined, or came back."""
        self.names[client] = name
        self.seen[client] = now
        return self._open(now)

    def met(self, client: str, now: float) -> list[Action]:
        """A client called in; it counts as present for ``rules.presence_s``."""
        self.seen[client] = now
        return self._open(now)

    def poll(self, client: str, now: float) -> Grant | Hold | Over:
        """What ``client`` should do now. Asking twice gives the same lease twice."""
        if self.phase is Phase.FINISHED:
            return Over("the run is finished")
        if self.phase in (Phase.TRAINING, Phase.EVALUATING):
            for lease in self.leases.values():
                if lease.client == client and lease.fate is Fate.OPEN:
                    return Grant(lease, max(0.0, self.deadline - now))
        return Hold(f"round {self.round} is {self.phase.value}")

    def admit(self, ticket: str, client: str, archived: Lease | None = None) -> Lease:
        """The lease an update belongs to, open or already counted. Raises Refused for all others.

        ``archived`` is what the store knows of a ticket of an earlier round.
        """
        lease = self.leases.get(ticket, archived)
        if lease is None or lease.client != client:
            raise Refused("FAULT_UNKNOWN_TICKET", f"No ticket '{ticket[:40]}' was issued to this client.")
        if lease.fate in (Fate.OPEN, Fate.COUNTED):
            return lease
        if lease.fate is Fate.STALE:
            raise Refused("FAULT_STALE_ROUND", f"Round {lease.round} is over; the run is in round {self.round}.")
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

    def stepped(self, now: float) -> list[Action]:
        """The round is committed."""
        self._expire()
        if self.round < self.rules.rounds:
            self.round += 1
            self.phase = Phase.GATHERING
            return self._open(now)
        return self._evaluate(now) if self.rules.final_evaluation else self._finish("all rounds are done")

    def tick(self, now: float) -> list[Action]:
        """Time passed. Closes a round whose deadline is over, or extends it when too few updates are in."""
        if self.phase is Phase.GATHERING:
            return self._open(now)
        if now < self.deadline:
            return []
        if self.phase is Phase.EVALUATING:
            return self._finish("all rounds are done; not every client evaluated the last model")
        if self.phase is not Phase.TRAINING:
            return []
        counted = self._count(Fate.COUNTED)
        if counted >= self.rules.min_updates:
            return self._close()
        self.deadline = now + self.rules.deadline_s
        note = Note(
            f"round {self.round}: deadline passed with {counted} of at least {self.rules.min_updates} updates; extended"
        )
        kept = (Fate.OPEN, Fate.COUNTED)
        self.leases = {ticket: lease for ticket, lease in self.leases.items() if lease.fate in kept}
        return [note, *self._invite(now, len(self.names))]

    def stop(self, reason: str) -> list[Action]:
        """End the run early."""
        return self._finish(reason)

    @property
    def due(self) -> float:
        """When ``tick`` has something to do next; infinity, or the past, while only clients can move the run."""
        return self.regroup if self.phase is Phase.GATHERING else self.deadline

    # -- restart --------------------------------------------------------------------------------------------------

    def restore(self, round_: int, phase: Phase, leases: Iterable[Lease], names: Mapping[str, str], now: float) -> None:
        """Continue where a store says the run stood. Deadlines start anew; clients count as absent until they call."""
        self.round, self.phase = round_, phase
        self.names, self.seen = dict(names), {}
        self.leases = {lease.id: lease for lease in leases}
        invited = len(self.leases)
        self.target = min(invited, max(self.rules.min_updates, math.ceil(invited / self.rules.over_select - 1e-9)))
        self.deadline = now + self.rules.deadline_s if phase in (Phase.TRAINING, Phase.EVALUATING) else math.inf
        self.regroup = now + self.rules.regroup_s

    def resume_actions(self) -> list[Action]:
        """What must happen first after ``restore``: a round that was complete when the server died is closed now."""
        if self.phase is Phase.EVALUATING and not self._count(Fate.OPEN):
            return self._finish("all rounds are done")
        return self._maybe_close() if self.phase is Phase.TRAINING else []

    # -- inside ---------------------------------------------------------------------------------------------------

    def at_work(self) -> tuple[str, ...]:
        """Clients with an open lease of the current round."""
        return tuple(lease.client for lease in self.leases.values() if lease.fate is Fate.OPEN)

    def _count(self, fate: Fate) -> int:
        return sum(lease.fate is fate for lease in self.leases.values())

    def _present(self, now: float) -> list[str]:
        if self.here is not None:
            return [c for c, name in self.names.items() if self.here(name, self.round, now)]
        return [c for c, at in self.seen.items() if now - at <= self.rules.presence_s]

    def _willing(self, now: float) -> list[str]:
        """Present clients that may be invited, in the order of their names."""
        present = sorted(self._present(now), key=self.names.__getitem__)
        require = self.rules.require
        return [c for c in present if self.candidate(c, self.names[c]).meets(require)] if require else present

    def _open(self, now: float) -> list[Action]:
        if self.phase is Phase.TRAINING:  # whoever comes may fill the place of one that was refused
            missing = self.target - self._count(Fate.OPEN) - self._count(Fate.COUNTED)
            return self._invite(now, missing) if missing > 0 else []
        if self.phase is not Phase.GATHERING or self.held:
            return []
        present = self._present(now)
        needed = max(self.rules.min_updates, self.rules.min_clients if self.round == 1 else 1)
        if now < self.regroup:
            needed = max(needed, len(self.names))
        if len(present if self.here is None else self.seen) < needed:
            return []
        willing = len(self._willing(now))
        if willing < max(1, self.rules.min_updates):
            return []
        self.phase = Phase.TRAINING
        self.leases = {}
        self.deadline = now + self.rules.deadline_s
        self.target = min(self.rules.cohort(len(present)), willing)
        return self._invite(now, math.ceil(self.target * self.rules.over_select))

    def _invite(self, now: float, count: int) -> list[Action]:
        invited = {lease.client for lease in self.leases.values()}
        pool = {self.names[c]: c for c in self._willing(now) if c not in invited}
        candidates = [self.candidate(client, name) for name, client in pool.items()]
        chosen = self.rules.select(candidates, min(count, len(pool)), self.round, len(invited))
        leases = tuple(Lease(self.new_id(), pool[name], self.round) for name in chosen)
        self.leases.update({lease.id: lease for lease in leases})
        return [Issue(self.round, leases)] if leases else []

    def _end(self, ticket: str, fate: Fate, now: float) -> list[Action]:
        lease = self.leases.get(ticket)
        if lease is None or lease.fate is not Fate.OPEN:
            return []
        self.leases[ticket] = replace(lease, fate=fate)
        if self.phase is Phase.EVALUATING:
            return self._finish("all rounds are done") if not self._count(Fate.OPEN) else []
        if self.phase is not Phase.TRAINING:
            return []
        closing = self._maybe_close()
        if closing or fate is Fate.COUNTED:
            return closing
        replacement = self._invite(now, 1)
        if not replacement and all(lease.fate is Fate.DECLINED for lease in self.leases.values()):
            return self._finish(f"every client declined round {self.round}")
        return replacement

    def _maybe_close(self) -> list[Action]:
        counted = self._count(Fate.COUNTED)
        full = counted >= self.target
        exhausted = not self._count(Fate.OPEN) and counted >= self.rules.min_updates
        return self._close() if full or exhausted else []

    def _close(self) -> list[Action]:
        self.phase = Phase.STEPPING
        self.deadline = math.inf
        return [Step(self.round)]

    def _expire(self) -> None:
        """Leases of the closed round that nobody used are stale."""
        for ticket, lease in self.leases.items():
            if lease.fate is Fate.OPEN:
                self.leases[ticket] = replace(lease, fate=Fate.STALE)

    def _evaluate(self, now: float) -> list[Action]:
        clients = sorted(self._present(now), key=lambda c: self.names[c])
        if not clients:
            return self._finish("all rounds are done")
        self.phase = Phase.EVALUATING
        self.deadline = now + min(self.rules.deadline_s, self.rules.presence_s)
        leases = tuple(Lease(self.new_id(), client, self.round, evaluate=True) for client in clients)
        self.leases = {lease.id: lease for lease in leases}
        return [Issue(self.round, leases)]

    def _finish(self, reason: str) -> list[Action]:
        self._expire()
        self.phase = Phase.FINISHED
        self.deadline = math.inf
        return [Finish(reason)]
