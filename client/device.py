"""A device at work: performs what its ``Session`` asks for, with a link, a vault and a trainer, and says how it went.

``run()`` goes on until the run is over; ``step()`` performs one action, which lets a simulation drive many devices in
one thread. What a person should hear of it goes to a listener as ``Note``.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from fedpress.client import actions, events
from fedpress.client.blobs import Blobs
from fedpress.client.link import Link
from fedpress.client.notes import Kind
from fedpress.client.notes import Note as Note
from fedpress.client.pace import Measured, Pace
from fedpress.client.probe import Probe
from fedpress.client.session import Session
from fedpress.client.trainers.trainer import Trainer
from fedpress.client.vault import Identity, Vault
from fedpress.client.work import Done, perform
from fedpress.compression import registry
from fedpress.compression.download import origin, rebuild
from fedpress.compression.layout import Layout, begin, from_infos, kind_number, spec_of
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError, FedpressError, Refused, ServerGone, SpecError, VaultError
from fedpress.params import Spec, content_hash
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.protos.names import metrics_of, short

#: The share by which a link's rate must have changed to be told again.
_MATERIAL: Final = 0.25


class Device:
    """One device in one run.

    ``name``: what people call it, unique in the run; its random draws depend on it. ``task``: what it has data for.
    ``patience``: seconds it waits for work in one call; None: as long as the server holds it. ``stop``: set it, and the
    device ends after the action in hand. ``condition``: how the device is now; the server hears of changes. ``sleep``,
    ``pace``, ``probe`` and ``away`` (seconds in which it will not ask for work) are for simulations.
    """

    def __init__(
        self,
        link: Link,
        vault: Vault,
        trainer: Trainer,
        name: str,
        task: str,
        device_class: str = "any",
        patience: float | None = None,
        stop: threading.Event | None = None,
        listener: Callable[[Note], object] | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], object] | None = None,
        probe: Probe | None = None,
        condition: Callable[[], pb.Condition] = pb.Condition,
        away: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.name = name
        self.session = Session(Stream.of(name, "backoff"))
        self._link = link
        self._vault = vault
        self._trainer = trainer
        self._task = task
        self._device_class = device_class
        self._patience = patience
        self._stop = threading.Event() if stop is None else stop
        self._listener = listener
        self._pace = Measured() if pace is None else pace
        self._sleep = self._stop.wait if sleep is None else sleep
        self._probe = probe
        self._condition = condition
        self._away = away
        self._seed = 0
        self._layout: Layout = ()
        self._round = 0
        self._may_begin_anew = True
        self._blobs = Blobs(trainer.spec.nbytes)
        self._told = pb.LinkRates()
        self._told_condition = pb.Condition()

    @property
    def stopped(self) -> actions.Stop | None:
        """Why there is nothing more to do, once there is not."""
        action = self.session.action
        return action if isinstance(action, actions.Stop) else None

    def run(self) -> str:
        """Take part until the run is over, the device cannot go on, or ``stop`` is set; returns the reason.

        Raises VaultError, and SpecError where the device's model is not the run's.
        """
        while (end := self.stopped) is None:
            if self._stop.is_set():
                return "stopped"
            self.step()
        return end.reason

    def step(self) -> actions.Action:
        """Perform the session's action; returns what it was. After the end it does nothing."""
        action, reachable = self.session.action, self.session.reachable
        if isinstance(action, actions.Stop):
            return action
        trouble = ""
        try:
            event: events.Event = _PERFORM[type(action)](self, action)
        except ServerGone as error:
            event, trouble = events.Gone(kept=self._blobs.arrived), str(error)
        except Refused as error:
            event = events.Refused(error.fault, str(error), error.retry_after)
            self._say("refused", f"{error} ({error.fault})")
        after = self.session.on(event)
        if reachable and not self.session.reachable:
            self._say("gone", f"{trouble.rstrip('.')}. Waiting for it.")
        elif self.session.reachable and not reachable:
            self._say("back", "The server is back.")
        if isinstance(after, actions.Stop):
            self._say("done", after.reason)
        return action

    def _enrol(self, _: actions.DoEnrol) -> events.Event:
        known = self._vault.identity
        if known is None or known.server != self._link.server:
            known = Identity("", secrets.token_hex(16), self._link.server, "", Spec(()))
            self._vault.enrol(known)  # before the call: should its reply be lost, the same key finds the same place
        capabilities, own = self._capabilities(), self._trainer.spec
        reply = self._link.enrol(
            pb.EnrolRequest(
                protocol=PROTOCOL,
                name=self.name,
                key=bytes.fromhex(known.key),
                capabilities=capabilities,
                task=self._task,
                spec_hash=bytes.fromhex(own.hash),
                kinds=[kind_number(t.kind) for t in own] if own.kinds else [],
            )
        )
        if reply.protocol != PROTOCOL:
            raise Refused("FAULT_PROTOCOL", f"The server speaks protocol {reply.protocol}, this device {PROTOCOL}.")
        self._layout, spec = from_infos(reply.spec, own)
        self._link.authenticate(reply.key)
        self._told, self._told_condition = capabilities.link, capabilities.condition
        self._vault.enrol(Identity(reply.client_id, reply.key.hex(), self._link.server, reply.run_id, spec))
        self._seed = reply.seed
        if self._patience is None:
            self._patience = max(0.0, reply.long_poll_seconds)
        self._say("enrolled", f"Enrolled as '{self.name}' in run {reply.run_id}, task '{reply.task}'.")
        if not self._vault.model_hash:
            self._begin()
        pending = self._vault.pending
        return events.Enrolled(self._vault.model_hash, pending.header.ticket if pending else b"")

    def _begin(self) -> None:
        """Hold the run's first version, which comes from its seed."""
        made = origin(begin(self._layout, self._trainer.initial(self._seed)), spec_of(self._layout, self._trainer.spec))
        self._vault.hold(made, content_hash(made))

    def _ask_work(self, action: actions.AskWork) -> events.Event:
        if (seconds := self._away()) > 0:
            return events.GotWait(seconds)
        rates, condition = self._rates(), self._condition()
        news = rates if _differ(rates, self._told) else None
        changed = condition if condition != self._told_condition else None
        request = pb.WorkRequest(
            held=short(action.held), link=news, wait_seconds=self._patience or 0.0, condition=changed
        )
        reply = self._link.get_work(request)
        self._told, self._told_condition = self._told if news is None else news, condition
        if action.held and self._may_begin_anew and _whole(reply):
            self._begin()  # the server has forgotten what is held, not what the run began with
            if self._vault.model_hash != action.held:
                request.held, request.wait_seconds = short(self._vault.model_hash), 0.0
                reply = self._link.get_work(request)
            self._may_begin_anew = not _whole(reply)
        kind = reply.WhichOneof("answer")
        if kind is None:
            raise Refused(
                "FAULT_PROTOCOL", "The server answered a request for work with nothing that this device knows."
            )
        if kind == "ticket":
            self._round = reply.ticket.round
            self._blobs.expect(reply.ticket.recipe)
        return _ANSWERS[kind](reply)

    def _fetch(self, action: actions.Fetch) -> events.Event:
        blob = action.blob
        if not self._blobs.needs(blob, action.offset):
            return events.GotBlob()
        if wrong := self._blobs.fetch(blob, self._link.fetch(blob.hash, action.offset)):
            self._say("refused", wrong)
            return events.BadBlob()
        self._say("fetched", f"{blob.size} bytes, {blob.codec}.")
        return events.GotBlob()

    def _rebuild(self, action: actions.Rebuild) -> events.Event:
        ticket, vault = action.ticket, self._vault
        if vault.identity is None:
            raise VaultError(f"Expected an identity in '{vault.directory}'.")
        blobs = self._blobs.give(ticket.recipe)
        model_hash = ticket.model.hex()
        if not blobs and model_hash and vault.model_hash == model_hash:
            return events.Rebuilt()
        try:
            made = rebuild(vault.model or None, vault.model_hash, blobs, vault.identity.spec, model_hash)
        except (DecodeError, SpecError) as error:
            vault.let_go()
            self._say("refused", f"The model could not be rebuilt: {error}")
            return events.RebuildFailed(f"the model could not be rebuilt: {error}")
        vault.hold(made.model, model_hash, made.change if ticket.recipe[-1].step else None)
        return events.Rebuilt()

    def _train(self, action: actions.Train) -> events.Event:
        ticket, vault = action.ticket, self._vault
        if vault.identity is None:
            raise VaultError(f"Expected an identity in '{vault.directory}'.")
        try:
            outcome = perform(
                ticket,
                vault.identity.spec,
                vault.model,
                vault.step,
                vault.kept,
                vault.history,
                self._trainer,
                self._seed,
                self.name,
                self._pace,
                self._probe,
            )
        except FedpressError as error:
            return events.CannotTrain(str(error), final=True)
        if outcome.history != vault.history:
            vault.spend(outcome.history)
        if not isinstance(outcome, Done):
            return events.CannotTrain(outcome.reason)
        vault.propose(outcome.pending)
        report = outcome.pending.header.report
        told = f"loss {report.loss:.4f}, " if report.loss else ""
        told += f"epsilon {report.epsilon:.3f}, " if report.epsilon else ""
        told += "".join(f"{name} of what arrived {value:.4f}, " for name, value in sorted(metrics_of(report).items()))
        kind: Kind = "evaluated" if ticket.work == pb.WORK_EVALUATE else "trained"
        self._say(kind, f"{told}{report.examples} examples, {len(outcome.pending.payload)} bytes to send.")
        return events.Trained()

    def _decline(self, action: actions.Decline) -> events.Event:
        self._say("declined", action.reason)
        self._link.decline(action.ticket, action.reason)
        return events.Acknowledged()

    def _ask_offset(self, action: actions.AskOffset) -> events.Event:
        reply = self._link.offset(action.ticket)
        return events.GotOffset(reply.offset, reply.acknowledged)

    def _push(self, action: actions.Push) -> events.Event:
        pending = self._vault.pending
        if pending is None or pending.header.ticket != action.ticket:
            raise VaultError(f"Expected the update for ticket {action.ticket.hex()} in '{self._vault.directory}'.")
        header = pb.PushHeader()
        header.CopyFrom(pending.header)
        header.offset = action.offset
        self._link.push(header, pending.payload)
        return events.Acknowledged()

    def _commit(self, action: actions.Commit) -> events.Event:
        self._vault.commit(action.ticket)
        self._say("pushed", "The update was acknowledged.")
        return events.Settled()

    def _drop(self, action: actions.Drop) -> events.Event:
        if action.anew:
            self._vault.forget()
        self._vault.drop(action.ticket)
        self._say("dropped", action.reason)
        return events.Settled()

    def _rest(self, action: actions.Sleep) -> events.Event:
        self._sleep(action.seconds)
        return events.Rested()

    def _capabilities(self) -> pb.Capabilities:
        condition = self._condition()
        return pb.Capabilities(
            codecs=registry.ids(),
            trainers=[self._trainer.name],
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            cores=os.cpu_count() or 0,
            device_class=self._device_class,
            link=self._rates(),
            condition=condition if condition.ByteSize() else None,
        )

    def _rates(self) -> pb.LinkRates:
        return pb.LinkRates(up=self._link.traffic.up.bytes_per_s, down=self._link.traffic.down.bytes_per_s)

    def _say(self, kind: Kind, text: str) -> None:
        if self._listener is not None:
            self._listener(Note(kind, text, self._round))


def _differ(now: pb.LinkRates, told: pb.LinkRates) -> bool:
    """A link has changed enough to say so."""
    return any(abs(new - old) > _MATERIAL * old for new, old in ((now.up, told.up), (now.down, told.down)))


def _whole(reply: pb.WorkReply) -> bool:
    """A ticket that begins with a whole model."""
    return bool(reply.ticket.recipe) and reply.ticket.recipe[0].full


_ANSWERS: Final[Mapping[str, Callable[[pb.WorkReply], events.Event]]] = {
    "ticket": lambda reply: events.GotTicket(reply.ticket),
    "wait": lambda reply: events.GotWait(reply.wait.seconds),
    "finished": lambda reply: events.GotFinished(reply.finished.reason),
}
_PERFORM: Final[Mapping[type, Callable[[Device, Any], events.Event]]] = {
    actions.DoEnrol: Device._enrol,
    actions.AskWork: Device._ask_work,
    actions.Fetch: Device._fetch,
    actions.Rebuild: Device._rebuild,
    actions.Train: Device._train,
    actions.Decline: Device._decline,
    actions.AskOffset: Device._ask_offset,
    actions.Push: Device._push,
    actions.Commit: Device._commit,
    actions.Drop: Device._drop,
    actions.Sleep: Device._rest,
}
if set(_PERFORM) != set(get_args(actions.Action)) - {actions.Stop}:
    raise RuntimeError("A device must be able to perform every action but Stop.")
