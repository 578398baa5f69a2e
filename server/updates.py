"""Clients' updates, from the choice of a codec to the round's sum: chosen, decoded, remembered, folded.

A codec is chosen when a lease is made, and kept with it. An update is decoded against the version it builds on, with
what the codec remembers of its client, and folded for what the strategy says it counts. After a crash the updates of
the open round are folded again, in the order they were counted in, from the memories they were decoded with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from fedpress.compression.codec import Codec, Context, State, energy
from fedpress.compression.grouped import per_group
from fedpress.compression.payload import max_bytes, unseal
from fedpress.compression.registry import parse as parse_codec
from fedpress.params import Spec, Tensors
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.sections import AUTO
from fedpress.server import domains
from fedpress.server.aggregate import Gathering
from fedpress.server.bounds import check_update
from fedpress.server.choice import Choice, Facts, scheduled, upload
from fedpress.server.enrolment import Enrolment
from fedpress.server.guarded import Guarded
from fedpress.server.leases import Lease
from fedpress.server.memories import Memories
from fedpress.server.store import Store
from fedpress.server.strategies import Aggregate, Arrival, Strategy
from fedpress.server.tickets import shared_seed, training
from fedpress.server.versions import Versions


class Updates:
    """Of one run, whose travelling tensors have ``spec``. ``guarded``: their sum under central privacy."""

    def __init__(
        self,
        plan: Plan,
        strategy: Strategy,
        spec: Spec,
        store: Store,
        versions: Versions,
        enrolment: Enrolment,
        guarded: Guarded | None = None,
    ) -> None:
        self.memories = Memories(store, spec)
        self._plan, self._strategy, self._spec = plan, strategy, spec
        self._store, self._versions, self._enrolment = store, versions, enrolment
        self._gathering = guarded or Gathering(domains.moving(spec))
        self._choices: dict[str, Choice] = {}

    # -- how they are coded -------------------------------------------------------------------------------------------

    def choose(self, leases: Iterable[Lease]) -> Mapping[str, Choice]:
        """Choose the codec of each lease's update, by ticket, for good: a resumed round ends as it began."""
        chosen = {lease.id: Choice("", "") if lease.evaluate else self._choose(lease) for lease in leases}
        self._choices.update(chosen)
        return chosen

    def text(self, lease: Lease) -> str:
        """The text of the codec chosen for a lease's update."""
        return self._choices[lease.id].codec

    def codec(self, lease: Lease) -> Codec:
        """How the update of a lease of training is coded."""
        return per_group(parse_codec(self.text(lease)), self._spec)

    def limit(self, lease: Lease) -> int:
        """Most bytes of a lease's update."""
        return 0 if lease.evaluate else max_bytes(self.codec(lease), self._spec)

    def _choose(self, lease: Lease) -> Choice:
        settings = self._plan.upload
        if settings.codec == AUTO:
            return upload(Facts.of(self._plan, self._spec.size), settings.floor)
        progress = (lease.round - 1) / max(1, self._plan.run.rounds - 1)
        return Choice(scheduled(parse_codec(settings.codec).text, settings.rate_end, progress), "")

    # -- what they come to --------------------------------------------------------------------------------------------

    def decode(self, lease: Lease, payload: bytearray, memory: State) -> tuple[Tensors, State]:
        """The update, against the version it builds on, and what the codec remembers of the client then. Raises
        DecodeError."""
        context = Context(shared_seed(self._plan, lease.round), lease.round, self._versions.step_at(lease.base))
        update, memory = unseal(self.codec(lease), payload, memory, context, self._spec)
        check_update(update)
        return update, memory

    def arrival(self, lease: Lease, report: pb.Report, round_: int) -> Arrival:
        """What a strategy is told of an update that comes in ``round_``."""
        versions = self._versions

        def base() -> Tensors:
            found = versions.seen_at(lease.base)
            return versions.seen if found is None else found

        said = training(self._plan, lease.round)
        return Arrival(report, said, round_ - lease.round, base, lambda: versions.seen)

    def fold(self, update: Tensors, arrival: Arrival) -> None:
        """Into the current round's sum, for good: what is acknowledged was folded."""
        seen = domains.read(self._strategy, self._spec, update, arrival)
        lost = arrival.report.lost * self._scaled(update, seen)
        self._gathering.fold(seen, self._strategy.share(arrival), lost)
        if not arrival.staleness:  # or it measured an older model than the others
            self._gathering.measure(arrival.report)

    def _scaled(self, update: Tensors, seen: Tensors) -> float:
        """What a strategy's way to read an update makes of its energy, and so of what was lost of it."""
        sent = [n for n in self._spec.named("weight") if update[n].any()]
        before = energy({n: update[n] for n in sent})
        return energy({n: seen[n] for n in sent}) / before if before else 1.0

    def aggregate(self, population: int) -> Aggregate:
        """The round's updates, of ``population`` enrolled clients."""
        return self._gathering.aggregate(population)

    def next_round(self, open_: Container[str]) -> None:
        """A new sum; of what was chosen only that of the tickets ``open_`` is still needed."""
        self._gathering.clear()
        self._choices = {ticket: choice for ticket, choice in self._choices.items() if ticket in open_}

    def restore(self, round_: int, counting: bool) -> None:
        """After a crash in ``round_``: what was chosen, and if it was ``counting``, what was folded."""
        self._choices = self._store.choices(round_)
        updates = self._store.counted(round_) if counting else []
        left = Counter(lease.client for lease, _, _ in updates)
        since: dict[str, State] = {}  # what came of a client's first update, while it has another
        for lease, report, tag in updates:
            codec = self.codec(lease)
            memory = since.pop(lease.client, None) if tag else None
            if memory is None:
                memory = self.memories.latest(lease.client, codec, tag, before=round_)
            update, memory = self.decode(lease, self._store.payloads.read(lease.id), memory)
            left[lease.client] -= 1
            if left[lease.client]:
                since[lease.client] = memory
            self.fold(update, self.arrival(lease, pb.Report.FromString(report), round_))
