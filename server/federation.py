"""The server without its sockets: what each call of ``fleet.proto`` does, on one thread.

It drives the ``Coordinator`` (who, when), keeps the ``Store`` (what must not be lost), folds updates as they arrive,
steps the strategy and publishes versions. The gRPC service and the inline engine are two skins on this class; both
count the same bytes because both move the same payloads through here.

    Push: header checked -> chunks to the inbox -> checksum -> decode, NaN refused -> durable -> folded -> acknowledged

Calls return; what takes long afterwards (closing a round) is left in a queue that the skin drains with ``advance``.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedpress.compression.codec import NOTHING, Codec, Context
from fedpress.compression.payload import max_bytes, unseal
from fedpress.compression.registry import ids_of
from fedpress.compression.registry import parse as parse_codec
from fedpress.errors import DecodeError, PlanError, Refused, SpecError, StoreError
from fedpress.params import Spec, Tensors
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server import events
from fedpress.server.aggregate import WeightedSum
from fedpress.server.coordinator import (
    Action,
    Coordinator,
    Fate,
    Finish,
    Grant,
    Issue,
    Lease,
    Note,
    Over,
    Phase,
    Rules,
    Step,
)
from fedpress.server.enrolment import Enrolment
from fedpress.server.inbox import Inbox
from fedpress.server.inbox import Stream as Upload
from fedpress.server.meter import Meter
from fedpress.server.rounds import evaluation_record, round_record
from fedpress.server.selection import SELECTIONS
from fedpress.server.store import Store
from fedpress.server.strategies import Strategy
from fedpress.server.strategies import build as build_strategy
from fedpress.server.tickets import shared_seed, ticket
from fedpress.server.versions import Versions, publisher


@dataclass(frozen=True)
class Pending:
    """A model to be measured on the server's data: call ``Federation.evaluated`` with the result."""

    round: int
    model: Tensors


class Federation:
    """One run. ``full`` is the initial model of the whole task; which of its tensors travel is the strategy's to say.

    ``clock`` gives seconds (monotonic). ``listen`` hears ``server.events``. Raises PlanError for a plan that does not
    go with the model, StoreError if the store holds another run.
    """

    def __init__(
        self,
        plan: Plan,
        full: Tensors,
        store: Store,
        clock: Callable[[], float],
        listen: events.Listener,
    ) -> None:
        self.plan = plan
        self.store = store
        self.strategy: Strategy = build_strategy(plan.strategy)
        self.full_spec = Spec.of(full)
        self.personal = self.strategy.personal(self.full_spec)
        self.spec = self.full_spec.without(self.personal)
        self.codec: Codec = parse_codec(plan.upload.codec)
        self.run_id = self._claim()
        self.versions = Versions(plan.download, self.spec, store)
        self.meter = Meter((int(store.meta("wire_up") or 0), int(store.meta("wire_down") or 0)))
        self.finished = ""
        self.pending: deque[Pending] = deque()
        self._clock, self._listen = clock, listen
        self._inbox = Inbox(store)
        self._sum = WeightedSum(self.spec)
        self._todo: deque[Action] = deque()
        self._taken: set[str] = set()
        self._began = self._opened = clock()
        self._before = float(store.meta("elapsed") or 0.0)
        self._limit = max_bytes(self.codec, self.spec)
        needs = ids_of(self.codec) | ids_of(parse_codec(plan.download.codec))
        self._enrolment = Enrolment(store, needs, plan.train.trainer, self.full_spec)
        self._coordinator = Coordinator(self._rules(), new_id=lambda: secrets.token_hex(16))
        self._initial = {n: full[n] for n in self.spec.names}

    def start(self) -> None:
        """Begin the run, or continue what the store holds. To be called once, before any other call."""
        if self.store.meta("round") is None:
            self._begin(self._initial)
        else:
            self._resume()
        self._initial = {}

    # -- calls of devices -----------------------------------------------------------------------------------------

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Admit a device, or know it again. Raises Refused."""
        client, key = self._enrolment.admit(request)
        self._do(self._coordinator.enrolled(client.id, client.name, self._clock()))
        self._listen(events.ClientJoined(client.name, len(self._enrolment)))
        return pb.EnrolReply(
            client_id=client.id,
            key=key,
            run_id=self.run_id,
            task=self.plan.task.name,
            spec=[pb.TensorInfo(name=t.name, shape=t.shape, dtype=t.dtype) for t in self.spec],
            long_poll_seconds=self.plan.server.long_poll_s,
            chunk_bytes=self.plan.server.chunk_bytes,
            seed=self.plan.run.seed,
            protocol=PROTOCOL,
        )

    def authenticate(self, client: str, key: str) -> str:
        """The client id, if the key is its own. Raises Refused."""
        return self._enrolment.authenticate(client, key)

    def get_work(self, client: str, request: pb.WorkRequest) -> pb.WorkReply:
        """A ticket, Finished, or Wait(0): ask again, or be held by the skin."""
        now = self._clock()
        self._do(self._coordinator.met(client, now))
        answer = self._coordinator.poll(client, now)
        if isinstance(answer, Grant):
            return pb.WorkReply(ticket=self._ticket(client, answer, request.held_model))
        if isinstance(answer, Over):
            return pb.WorkReply(finished=pb.Finished(reason=answer.reason))
        return pb.WorkReply(wait=pb.Wait(seconds=0.0, reason=answer.reason))

    def blob(self, content_hash: str, offset: int) -> memoryview:
        """The bytes of a blob from ``offset`` on. Raises Refused."""
        data = self.versions.blob(content_hash)
        if data is None:
            raise Refused("FAULT_UNKNOWN_BLOB", f"No blob '{content_hash[:80]}' is kept here: ask for work again.")
        if offset > len(data):
            raise Refused("FAULT_BAD_OFFSET", f"Expected an offset of at most {len(data)}, got {offset}.")
        return memoryview(data)[offset:]

    def offset(self, client: str, ticket: str) -> pb.OffsetReply:
        """Where an upload resumes. Raises Refused."""
        lease = self._lease(ticket, client)
        return pb.OffsetReply(offset=self._inbox.offset(ticket), acknowledged=lease.fate is Fate.COUNTED)

    def push(self, client: str, header: pb.PushHeader) -> Upload | pb.PushReply:
        """Begin or resume an upload; a PushReply if it was acknowledged before. Raises Refused."""
        lease = self._lease(header.ticket, client)
        if lease.fate is Fate.COUNTED:
            return pb.PushReply(duplicate=True)
        if header.model != self.versions.hash:
            raise Refused(
                "FAULT_WRONG_MODEL",
                f"Expected an update against {self.versions.hash[:12]}, got '{header.model[:12]}'.",
            )
        return self._inbox.open(header, 0 if lease.evaluate else self._limit)

    def append(self, client: str, upload: Upload, data: bytes) -> None:
        """Take a chunk. Raises Refused."""
        self.meter.up(client, len(data))
        self._inbox.append(upload, data)

    def suspend(self, upload: Upload) -> None:
        """The link broke in the middle of an upload: keep what arrived."""
        self._inbox.suspend(upload.header.ticket)

    def finish(self, client: str, upload: Upload) -> pb.PushReply:
        """The upload is complete: decode, make durable, fold. The reply acknowledges it. Raises Refused."""
        header = upload.header
        lease = self._lease(header.ticket, client)
        if lease.fate is Fate.COUNTED:
            return pb.PushReply(duplicate=True)
        name = self._enrolment.name(client)
        try:
            payload = self._inbox.payload(upload)
            update = None if lease.evaluate else self._decode(lease, payload)
            weight = self._weigh(lease, header.report)
        except (DecodeError, Refused) as error:
            if isinstance(error, Refused) and error.fault == "FAULT_BAD_OFFSET":
                raise
            self._reject(lease, name, str(error))
            raise Refused("FAULT_MALFORMED", f"The update does not decode: {error}") from error
        with self.store.transaction():
            self._inbox.close(upload)
            self.store.end_lease(
                lease.id, Fate.COUNTED, self.meter.take(client), header.report.SerializeToString(deterministic=True)
            )
        if update is not None:
            self._sum.fold(update, weight)
        self._listen(events.UpdateCounted(name, lease.round, len(payload), 0 if lease.evaluate else self.spec.nbytes))
        self._do(self._coordinator.counted(lease.id, self._clock()))
        return pb.PushReply()

    def decline(self, client: str, ticket: str, reason: str) -> pb.DeclineReply:
        """A device gives its ticket back. Raises Refused."""
        lease = self._lease(ticket, client)
        if lease.fate is Fate.OPEN:
            self._inbox.discard(ticket)
            self.store.end_lease(ticket, Fate.DECLINED, self.meter.take(client))
            self._listen(events.ClientFailed(self._enrolment.name(client), lease.round, f"declined: {reason[:200]}"))
            self._do(self._coordinator.declined(ticket, self._clock()))
        return pb.DeclineReply()

    def release(self, device_class: str) -> pb.Release:
        """The shipped model for a device class, or the one for any. Raises Refused."""
        found = {r.device_class: r for r in self.store.releases()}
        release = found.get(device_class) or found.get("any")
        if release is None:
            raise Refused("FAULT_NO_RELEASE", f"Nothing was shipped for device class '{device_class[:40]}' yet.")
        self.versions.offer(release.hash, release.data)
        return pb.Release(
            hash=release.hash,
            bytes=len(release.data),
            format=release.format,
            device_class=release.device_class,
            metrics=release.metrics,
        )

    # -- the driver's side ----------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Do one piece of what is due, such as closing a round; False if nothing was."""
        if not self._todo:
            return False
        action = self._todo.popleft()
        if isinstance(action, Step):
            self._close_round(action.round)
        return True

    def tick(self) -> None:
        """Let deadlines pass."""
        self._do(self._coordinator.tick(self._clock()))

    def stop(self, reason: str) -> None:
        """End the run early; what is committed stays."""
        self._do(self._coordinator.stop(reason))

    def evaluated(self, pending: Pending, metrics: Mapping[str, float]) -> None:
        """The server's measure of the model after a round: completes its record."""
        record = {**self.store.round(pending.round), "metrics": dict(metrics)}
        self.store.set_round(pending.round, record)
        self._listen(events.RoundClosed(record, pending.model))

    @property
    def round(self) -> int:
        """The current round, from 1."""
        return self._coordinator.round

    @property
    def enrolled(self) -> int:
        """Clients that ever enrolled."""
        return len(self._enrolment)

    @property
    def waiting_for(self) -> str:
        """Why nothing happens, for people: the phase and who is at work."""
        at_work = [self._enrolment.name(c) for c in self._coordinator.at_work()]
        return f"round {self.round} is {self._coordinator.phase.value}" + (
            f", at work: {', '.join(at_work)}" * bool(at_work)
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _claim(self) -> str:
        """This run's id; the store must be empty or of the same spec."""
        with self.store.transaction():
            known = self.store.meta("spec")
            if known is None:
                self.store.set_meta("spec", self.spec.to_json())
                self.store.set_meta("run_id", secrets.token_hex(8))
            elif Spec.from_json(known) != self.spec:
                raise StoreError(
                    "The store in this run's directory belongs to another model. Choose another run.name, or remove it."
                )
            return self.store.meta("run_id") or ""

    def _rules(self) -> Rules:
        plan = self.plan
        return Rules(
            rounds=plan.run.rounds,
            cohort=plan.cohort_size,
            select=SELECTIONS[plan.cohort.selection](plan.run.seed),
            min_clients=plan.cohort.min_clients or plan.clients.count,
            min_updates=plan.cohort.min_updates,
            over_select=plan.cohort.over_select,
            deadline_s=plan.cohort.deadline_s,
            presence_s=30.0 + 3 * plan.server.long_poll_s,
            final_evaluation=plan.evaluate.clients_every > 0,
        )

    def _begin(self, model: Tensors) -> None:
        with self.store.transaction():
            self.versions.publish(model, self.strategy.init(self.spec), 0)
            self.store.set_round(0, round_record(self.store, 0, self.spec, 0.0, 0.0))
            self._mark(Phase.GATHERING)
        self._queue_evaluation(0)

    def _resume(self) -> None:
        self.versions.restore()
        round_ = int(self.store.meta("round") or 1)
        phase = Phase(self.store.meta("phase"))
        evaluating = phase is Phase.EVALUATING
        leases = self.store.leases(round_, evaluating) if phase in (Phase.TRAINING, Phase.EVALUATING) else []
        if phase is Phase.FINISHED and round_ < self.plan.run.rounds:
            round_, phase = round_ + 1, Phase.GATHERING
        self._coordinator.restore(round_, phase, leases, self._enrolment.names, self._clock())
        for lease, _, _, report in self.store.reports(round_, evaluate=False) if phase is Phase.TRAINING else []:
            if lease.fate is Fate.COUNTED:
                update = self._decode(lease, self.store.payload(lease.id))
                self._sum.fold(update, self.strategy.weight(pb.Report.FromString(report)))
        if phase is Phase.FINISHED:
            self.finished = "the run was finished before"
        self._do(self._coordinator.resume_actions())

    def _mark(self, phase: Phase) -> None:
        self._mark_as(self._coordinator.round, phase)

    def _mark_as(self, round_: int, phase: Phase) -> None:
        up, down = self.meter.wire
        facts = {"round": round_, "phase": phase.value, "elapsed": self._elapsed(), "wire_up": up, "wire_down": down}
        for key, value in facts.items():
            self.store.set_meta(key, str(value))

    def _elapsed(self) -> float:
        return self._before + self._clock() - self._began

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Issue):
                self._issue(action)
            elif isinstance(action, Step):
                self._todo.append(action)
            elif isinstance(action, Note):
                self._listen(events.Noted(action.text))
            elif isinstance(action, Finish):
                self._finish(action.reason)

    def _issue(self, action: Issue) -> None:
        evaluating = self._coordinator.phase is Phase.EVALUATING
        with self.store.transaction():
            self.store.add_leases(action.leases)
            self._mark(self._coordinator.phase)
        if len(action.leases) == len(self._coordinator.leases):
            self._opened = self._clock()
        names = tuple(self._enrolment.name(lease.client) for lease in action.leases)
        self._listen(events.RoundOpened(action.round, self.plan.run.rounds, names, evaluating))

    def _ticket(self, client: str, grant: Grant, held: str) -> pb.Ticket:
        lease = grant.lease
        recipe = self.versions.recipe(held)
        if lease.id not in self._taken:
            self._taken.add(lease.id)
            if recipe:
                self.meter.model(client)
            self._listen(events.WorkTaken(self._enrolment.name(client), lease.round))
        rule = self.strategy.rule(self.full_spec)
        return ticket(self.plan, lease, grant.seconds_left, rule, self.versions.hash, recipe, self._limit)

    def _lease(self, ticket: str, client: str) -> Lease:
        archived = None if ticket in self._coordinator.leases else self.store.lease(ticket)
        return self._coordinator.admit(ticket, client, archived)

    def _decode(self, lease: Lease, payload: bytearray) -> Tensors:
        return unseal(
            self.codec, payload, NOTHING, Context(shared_seed(self.plan, lease.round), lease.round), self.spec
        )[0]

    def _weigh(self, lease: Lease, report: pb.Report) -> float:
        numbers = [report.loss, report.train_seconds, report.encode_seconds, report.epsilon, *report.metrics.values()]
        if not all(map(math.isfinite, numbers)):
            raise Refused("FAULT_MALFORMED", "The update's report holds a number that is not finite.")
        weight = self.strategy.weight(report)
        if not lease.evaluate and weight <= 0:
            raise Refused("FAULT_MALFORMED", "The update's report names no examples.")
        return weight

    def _reject(self, lease: Lease, name: str, reason: str) -> None:
        self._inbox.discard(lease.id)
        self.store.end_lease(lease.id, Fate.REJECTED, self.meter.take(lease.client))
        self._listen(events.ClientFailed(name, lease.round, f"update refused: {reason}"))
        self._do(self._coordinator.rejected(lease.id, self._clock()))

    def _close_round(self, round_: int) -> None:
        model, state = self.strategy.step(self.versions.exact, self._sum.mean(), self.versions.state)
        now = self._clock()
        with self.store.transaction():
            for lease in self._coordinator.leases.values():
                if lease.fate is Fate.OPEN:
                    self.store.end_lease(lease.id, Fate.STALE, self.meter.take(lease.client))
            self.versions.publish(model, state, round_)
            record = round_record(self.store, round_, self.spec, now - self._opened, self._elapsed())
            self.store.set_round(round_, record)
            self._inbox.clear()
            done = round_ >= self.plan.run.rounds
            self._mark_as(round_ if done else round_ + 1, Phase.FINISHED if done else Phase.GATHERING)
        self._sum.clear()
        self._taken.clear()
        self._queue_evaluation(round_)
        self._do(self._coordinator.stepped(now))

    def _queue_evaluation(self, round_: int) -> None:
        every = self.plan.evaluate.server_every
        last = round_ >= self.plan.run.rounds
        pending = Pending(round_, self.versions.exact)
        if every and not self.personal and (round_ % every == 0 or last):
            self.pending.append(pending)
        else:
            self.evaluated(pending, {})

    def _finish(self, reason: str) -> None:
        evaluated = self.store.leases(self.round, evaluate=True)
        with self.store.transaction():
            for lease in self._coordinator.leases.values():
                if lease.fate is Fate.STALE:
                    self.store.end_lease(lease.id, Fate.STALE, self.meter.take(lease.client))
            if evaluated:
                seconds = self._clock() - self._opened
                record = evaluation_record(self.store, self.round, self.spec, seconds, self._elapsed())
                self.store.set_round(self.round + 1, record)
            self._mark(Phase.FINISHED)
        if evaluated:
            self._listen(events.RoundClosed(record, self.versions.exact))
        self.finished = reason
        self._listen(events.RunFinished(reason))


def check(plan: Plan, model: Tensors) -> None:
    """Raise PlanError for what in a plan cannot go with a model, before anything starts."""
    spec = Spec.of(model)
    try:
        shared = spec.without(build_strategy(plan.strategy).personal(spec))
    except SpecError as error:
        raise PlanError(f"{error} (strategy.personal)") from error
    publisher(plan.download, shared)
