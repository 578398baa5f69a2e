"""Who works on what, and when a round is over: a pure state machine. No sockets, clocks, files or tensors.

Every method is one event. It takes the time as ``now`` (seconds on any monotonic clock) and answers or returns
actions for its driver (``server.run``) to carry out. Faults are tested here by the thousand, without a network.

    GATHERING --enough clients present--> TRAINING --enough counted, or deadline--> STEPPING --stepped()--> GATHERING
    ... after the last round:  (EVALUATING --all answered, or deadline-->)  FINISHED

A lease (ticket) is made for every client when it is invited, so that it can be made durable before anybody hears of it;
polling only hands it out. Each ends exactly once: counted, rejected, declined, or stale. A lease that was handed out
may outlive its round by ``max_staleness`` rounds: an update that comes late then counts into the round in which it
comes. A client that asks for work has lost what it had, and that lease is stale at once.

When a round opens, who is invited and when it closes is the pacing's to say, of which there are three: by cohorts
(``server.cohorts``), by cohorts drawn once in secret (``server.sampled``), and without cohorts (``server.buffered``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
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
    Over,
    Phase,
    Rules,
    Step,
    count,
)
from fedpress.server.selection.candidate import Candidate

#: What is known of a client, by its id and name, when somebody is to be invited.
Known = Callable[[str, str], Candidate]
#: Whether a client is here, by its name, the round and the time: for simulations, which know.
Here = Callable[[str, int, float], bool]
#: Whether a client may be invited at all, by its id, name and the round: such as by what is left of its privacy budget.
May = Callable[[str, str, int], bool]


@dataclass
class Coordinator(ABC):
    """See the module's docstring. ``new_id`` makes ticket ids; ``names`` gives clients the order selection draws in.
    Without ``here``, a client is present for a while after it called."""

    rules: Rules
    new_id: Callable[[], str]
    known: Known = lambda _, name: Candidate(name)
    here: Here | None = None
    may: May = lambda *_: True
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

    # -- the pacing ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, now: float) -> list[Action]:
        """A version was published and there are more rounds."""

    @abstractmethod
    def _launch(self, now: float) -> list[Action]:
        """Enough clients are here, and ``target`` is how many are wanted."""

    @abstractmethod
    def _fill(self, now: float) -> list[Action]:
        """Somebody came while a round is open."""

    @abstractmethod
    def _ended(self, lease: Lease, now: float) -> list[Action]:
        """A lease ended in an open round."""

    @abstractmethod
    def _check(self, now: float) -> list[Action]:
        """Close the open round if that is due."""

    @abstractmethod
    def _wait(self, now: float) -> list[Action]:
        """Time passed in an open round."""

    def _until(self, lease: Lease) -> float:  # noqa: ARG002 - a pacing may give each lease a time of its own
        """When a lease's time is over."""
        return self.deadline

    def _target(self, willing: int, there: int) -> int:
        """How many a round wants of so many that may be invited, of so many that are here or at work; 0: wait."""
        return min(max(self.rules.cohort(there), self.rules.min_updates), willing)

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
        return count(self.leases.values(), Fate.COUNTED)

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
        return [c for c in able if self.known(c, self.names[c]).meets(require)] if require else able

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
        target = self._target(len(willing), len(busy.union(present)))
        if not target:
            return []
        self.phase, self.target = Phase.TRAINING, target
        self.deadline = now + self.rules.deadline_s
        return self._launch(now)

    def _invite(self, now: float, wanted: int) -> list[Action]:
        """Lease work to so many clients that are here and idle, and have not had their share of this round."""
        own = self._own()
        out = set(self.at_work()) | {lease.client for lease in own if lease.fate is not Fate.STALE}
        if self.rules.once:
            out |= self._in()
        pool = {self.names[c]: c for c in self._willing(now) if c not in out}
        candidates = [self.known(client, name) for name, client in pool.items()]
        chosen = self.rules.select(candidates, min(wanted, len(pool)), self.round, len(own))
        return self._lease((pool[name] for name in chosen), now)

    def _in(self) -> set[str]:
        """Clients whose updates are in the current round."""
        return {lease.client for lease in self.leases.values() if lease.fate is Fate.COUNTED}

    def _lease(self, clients: Iterable[str], now: float) -> list[Action]:
        """Work on the current round for these clients."""
        opens = not self._own()
        return self._issue((Lease(self.new_id(), client, self.round) for client in clients), now, opens)

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

    def _unwilling(self, asked: Collection[Lease]) -> list[Action]:
        """Nobody is left: end the run if that is because most of ``asked`` declined, as when training diverges, and the
        others were refused. Where it is for refusals, they are asked again at the deadline."""
        declined, rejected = count(asked, Fate.DECLINED), count(asked, Fate.REJECTED)
        if declined + rejected < len(asked) or declined <= rejected:
            return []
        if not rejected:
            return self._finish(f"every client declined round {self.round}")
        return self._finish(
            f"nobody is left in round {self.round}: {declined} declined, the updates of {rejected} were refused"
        )

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
