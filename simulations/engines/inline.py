"""The inline engine: one process, one thread, real payload bytes, no sockets. The debugger's engine and the sweep's.

The same federation, devices, codecs and vaults as over the network; only the link is a function call. Messages are
counted as gRPC would carry them, and a request for work once, when there is some: over a network it would be held.
Devices take turns in the order of their names, so that the same seed gives the same result, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial

from google.protobuf.message import Message

from fedpress.client import actions
from fedpress.client.device import Device
from fedpress.client.grpc_link import push_parts
from fedpress.client.link import Traffic
from fedpress.client.probe import Probe
from fedpress.client.vault import Vault
from fedpress.errors import FedpressError
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import FRAME_BYTES, IDENTITY_KEY, head_bytes
from fedpress.server import events
from fedpress.server.federation import Federation
from fedpress.server.inbox import Stream as Upload
from fedpress.simulations import distortion
from fedpress.simulations.availability import Availability
from fedpress.simulations.host import Host
from fedpress.simulations.problem import Problem
from fedpress.simulations.results import Result, Summary


class InlineLink:
    """A device's calls, carried into a federation by function calls. See ``client.link.Link``."""

    def __init__(self, federation: Federation) -> None:
        self.traffic = Traffic()
        self.server = "inline"
        self._federation = federation
        self._key, self._chunk = b"", 1

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Join."""
        reply = self._federation.enrol(request)
        self._chunk = reply.chunk_bytes
        self._count([request], [reply])
        return reply

    def authenticate(self, key: bytes) -> None:
        """Take this identity."""
        self._key = key

    def get_work(self, request: pb.WorkRequest) -> pb.WorkReply:
        """Ask for work; never held, but counted as if."""
        reply = self._federation.get_work(self._caller(), request)
        if not reply.HasField("wait"):
            self._count([request], [reply])
        return reply

    def fetch(self, blob: bytes, offset: int) -> Iterator[bytes]:
        """The blob in one piece."""
        client = self._caller()
        data = bytes(self._federation.blob(blob, offset))
        self._federation.meter.down(client, len(data))
        chunks = (pb.Chunk(data=data[at : at + self._chunk]) for at in range(0, len(data), self._chunk))
        self._count([pb.FetchRequest(hash=blob, offset=offset)], chunks)
        yield data

    def offset(self, ticket: bytes) -> pb.OffsetReply:
        """How much of an update is there."""
        return self._federation.offset(self._caller(), ticket)

    def push(self, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        """Send an update."""
        client = self._caller()
        upload = self._federation.push(client, header)
        if isinstance(upload, pb.PushReply):
            return upload
        self._append(upload, header, payload)
        return self._finish(upload)

    def decline(self, ticket: bytes, reason: str) -> pb.DeclineReply:
        """Give a ticket back."""
        return self._federation.decline(self._caller(), ticket, reason)

    def release(self, device_class: str) -> pb.Release:
        """The shipped model."""
        return self._federation.release(device_class)

    def close(self) -> None:
        """Nothing is open."""

    def _append(self, upload: Upload, header: pb.PushHeader, payload: bytes) -> None:
        """An upload's messages leave; whether they count is seen when they are here."""
        self._federation.append(self._caller(), upload, payload[header.offset :])
        self._count(push_parts(header, payload, self._chunk), [])

    def _finish(self, upload: Upload) -> pb.PushReply:
        """All of an upload is here."""
        reply = self._federation.finish(self._caller(), upload)
        self._count([], [reply])
        return reply

    def _count(self, up: Iterable[Message], down: Iterable[Message]) -> None:
        """The messages of one call, or of a part of it: its head goes with what is sent."""
        identity = [(IDENTITY_KEY, self._key)] if self._key else []
        sent, received = (sum(message.ByteSize() + FRAME_BYTES for message in way) for way in (up, down))
        self._federation.meter.message(up=sent + head_bytes(identity) if sent else 0, down=received)

    def _caller(self) -> str:
        return self._federation.authenticate(self._key)


def inline(
    problem: Problem,
    listen: events.Listener,
    resume: bool,
    baseline: Summary | None,
    probes: Callable[[str], Probe] | None = None,
) -> Result:
    """Run the problem in this thread. ``probes``: what watches a client, by its name; by default, for the report."""
    plan = problem.plan
    evaluate, shards = problem.evaluator(), sorted(enumerate(problem.names), key=lambda pair: pair[1])
    there = problem.availability
    here = there.here if there else None
    with Host(plan, problem.initial, listen, resume=resume, durable=False, here=here) as host, ExitStack() as vaults:
        federation = host.federation
        devices = []
        for shard, name in shards:
            vault = vaults.enter_context(Vault(plan.directory / "clients" / name, durable=False))
            trainer = problem.trainer(shard)
            link = InlineLink(federation)
            probe = probes(name) if probes else distortion.last_round(plan, vault.directory)
            task, waits = problem.task.name, partial(away, there, federation, name)
            devices.append(
                Device(link, vault, trainer, name, task, patience=0.0, sleep=lambda _: None, probe=probe, away=waits)
            )
        for device in devices:  # all enrol before anybody works, so that the first cohort is drawn from all
            device.step()
        while not (federation.finished and not federation.pending):
            before = federation.waiting_for
            for device in devices:
                _work(device)
            settle(federation, evaluate)
            if federation.waiting_for == before and not federation.finished:
                raise stuck(federation, devices)
        return host.result("inline", baseline)


def settle(federation: Federation, evaluate: Callable[[Tensors], Mapping[str, float]]) -> None:
    """Do what is due on the server: close rounds, measure models."""
    while federation.advance():
        pass
    while federation.pending:
        pending = federation.pending.popleft()
        federation.evaluated(pending, evaluate(pending.model))


def stuck(federation: Federation, devices: Iterable[Device]) -> FedpressError:
    """Why a run that nobody can move any more does not end."""
    ends = "; ".join(f"{d.name}: {d.stopped.reason}" for d in devices if d.stopped is not None)
    return FedpressError(f"Nothing moves any more: {federation.waiting_for}. {ends}")


def away(there: Availability | None, federation: Federation, name: str) -> float:
    """Seconds until a client asks for work again."""
    return there.away(name, federation.round, federation.elapsed) if there else 0.0


def _work(device: Device) -> None:
    """Let a device go on until it has to wait, or is done."""
    while device.stopped is None:
        asked = isinstance(device.step(), actions.AskWork)
        if asked and isinstance(device.session.action, actions.AskWork | actions.Sleep):
            return
