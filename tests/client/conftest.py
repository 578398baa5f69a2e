"""A server of a few lines that keeps the contract of ``fleet.proto`` for one device, over a real socket, and that can
be told to break: what the device's half is tested against without the server's half."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, Tensors, add, content_hash
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import CALLS, FAULT_KEY, IDENTITY_KEY, PROTOCOL, RETRY_KEY, SERVICE, STATUS
from fedpress.protos.names import checksum, short

Breakage = str | grpc.StatusCode


class Step:
    """A model version, and the payload that leads to it."""

    def __init__(self, model: Tensors, payload_of: Tensors, full: bool) -> None:
        self.model, self.hash, self.full = model, content_hash(model), full
        self.payload, _ = seal(parse("raw"), payload_of, NOTHING, Context(), Stream(0))


@dataclass
class Toy:
    """``rounds`` of one device. ``broken[call]``: faults or statuses to answer with, first come, first served; for
    Fetch and Push (chunks to let through, what then)."""

    initial: Tensors
    rounds: int = 3
    codec: str = "ef+topk:0.1+int8"
    rule: pb.Rule = field(default_factory=lambda: pb.Rule(name="fedavg"))
    training: pb.Training = field(default_factory=lambda: pb.Training(epochs=1, batch_size=8, optimizer="sgd", lr=0.1))
    privacy: pb.LocalPrivacy | None = None
    run: str = "run"
    chunk: int = 1024
    broken: dict[str, list[Any]] = field(default_factory=dict)
    updates: list[dict[str, Array]] = field(default_factory=list)
    reports: list[pb.Report] = field(default_factory=list)
    declined: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    fetched: list[tuple[int, int]] = field(default_factory=list)
    enrolled: list[pb.EnrolRequest] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    links: list[pb.LinkRates | None] = field(default_factory=list)
    sent: int = 0
    received: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self.spec = Spec.of(self.initial)
        self._steps = [Step(self.initial, self.initial, full=True)]
        self._known: dict[bytes, str] = {}
        self._inbox = bytearray()

    @property
    def round(self) -> int:
        return len(self.updates) + len(self.declined) + 1

    def start(self, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> int:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        kinds = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }
        handlers = {
            name: kinds[call.request_streams, call.reply_streams](
                getattr(self, f"_{name}".lower()),
                request_deserializer=lambda data, call=call: self._in(call.parse_request(data), data),
                response_serializer=self._out,
            )
            for name, call in CALLS.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        where = f"127.0.0.1:{port or self.port}"
        self.port = (
            self._server.add_secure_port(where, credentials) if credentials else self._server.add_insecure_port(where)
        )
        self._server.start()
        return self.port

    def stop(self) -> None:
        self._server.stop(0).wait()

    def forget(self) -> None:
        self._known.clear()

    def _in(self, message: Any, data: bytes) -> Any:
        self.received += len(data) + 5
        return message

    def _out(self, message: Any) -> bytes:
        data: bytes = message.SerializeToString()
        self.sent += len(data) + 5
        return data

    def _say(self, context: grpc.ServicerContext, breakage: Breakage) -> Any:
        if isinstance(breakage, grpc.StatusCode):
            context.abort(breakage, "as the test wishes")
        else:
            context.set_trailing_metadata(((FAULT_KEY, breakage), (RETRY_KEY, "0.5")))
            context.abort(STATUS[breakage], "as the test wishes")

    def _may_break(self, call: str, context: grpc.ServicerContext) -> None:
        if self.broken.get(call):
            self._say(context, self.broken[call].pop(0))

    def _caller(self, context: grpc.ServicerContext) -> None:
        told = dict(context.invocation_metadata())
        if told.get(IDENTITY_KEY) not in self._known:
            self._say(context, "FAULT_NOT_ENROLLED")

    def _enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolReply:
        self.enrolled.append(request)
        self._may_break("Enrol", context)
        key = request.key or b"a key of 16 byte"
        return pb.EnrolReply(
            client_id=self._known.setdefault(key, f"client-{len(self._known)}"),
            key=key,
            run_id=self.run,
            spec=[pb.TensorInfo(name=t.name, shape=t.shape, dtype=t.dtype) for t in self.spec],
            long_poll_seconds=0.0,
            chunk_bytes=self.chunk,
            seed=7,
            protocol=PROTOCOL,
        )

    def _getwork(self, request: pb.WorkRequest, context: grpc.ServicerContext) -> pb.WorkReply:
        self._caller(context)
        self.held.append(request.held.hex())
        self.links.append(request.link if request.HasField("link") else None)
        self._may_break("GetWork", context)
        if self.round > self.rounds:
            return pb.WorkReply(finished=pb.Finished(reason="that was all"))
        step, hashes = self._steps[-1], [short(step.hash) for step in self._steps]
        path = self._steps[hashes.index(request.held) + 1 :] if request.held in hashes else self._steps
        ticket = pb.Ticket(
            id=f"ticket-{self.round}".encode(),
            work=pb.WORK_TRAIN,
            round=self.round,
            model=bytes.fromhex(step.hash),
            recipe=[
                pb.Blob(hash=hashlib.sha256(s.payload).digest(), size=len(s.payload), codec="raw", full=s.full)
                for s in path
            ],
            upload_codec=self.codec,
            seed=self.round,
            max_update_bytes=max_bytes(parse(self.codec), self.spec),
            training=self.training,
            rule=self.rule,
            evaluate=True,
        )
        if self.privacy is not None:
            ticket.privacy.CopyFrom(self.privacy)
        return pb.WorkReply(ticket=ticket)

    def _fetch(self, request: pb.FetchRequest, context: grpc.ServicerContext) -> Iterator[pb.Chunk]:
        self._caller(context)
        payload = {hashlib.sha256(s.payload).digest(): s.payload for s in self._steps}[request.hash]
        let, what = self.broken["Fetch"].pop(0) if self.broken.get("Fetch") else (1 << 30, "")
        self.fetched.append((request.offset, len(payload)))
        for i, at in enumerate(range(request.offset, len(payload), self.chunk)):
            if i == let and what == "flip":
                yield pb.Chunk(data=bytes(len(payload[at : at + self.chunk])))
            elif i == let:
                self._say(context, what)
            else:
                yield pb.Chunk(data=payload[at : at + self.chunk])

    def _offset(self, request: pb.OffsetRequest, context: grpc.ServicerContext) -> pb.OffsetReply:
        self._caller(context)
        self._may_break("Offset", context)
        done = int(request.ticket.rpartition(b"-")[2]) < self.round
        return pb.OffsetReply(offset=len(self._inbox), acknowledged=done)

    def _push(self, parts: Iterator[pb.PushPart], context: grpc.ServicerContext) -> pb.PushReply:
        self._caller(context)
        first = next(parts)
        header = first.header
        self.offsets.append(header.offset)
        if int(header.ticket.rpartition(b"-")[2]) < self.round:
            return pb.PushReply(duplicate=True)
        let, what = self.broken["Push"].pop(0) if self.broken.get("Push") else (1 << 30, "")
        if header.offset != len(self._inbox):
            self._say(context, "FAULT_BAD_OFFSET")
        for i, part in enumerate([first, *parts] if first.data else parts):
            if i == let:
                self._say(context, what)
            self._inbox += part.data
        payload = bytes(self._inbox)
        self._inbox.clear()
        assert len(payload) == header.size
        assert checksum(payload) == header.checksum
        assert header.base == short(self._steps[-1].hash)
        update, _ = unseal(parse(self.codec), payload, NOTHING, Context(self.round, self.round), self.spec)
        self.updates.append(dict(update))
        self.reports.append(header.report)
        self._steps.append(Step(add(self._steps[-1].model, update), update, full=False))
        if let == -1:
            self._say(context, what)  # counted, but the acknowledgement is lost
        return pb.PushReply()

    def _decline(self, request: pb.DeclineRequest, context: grpc.ServicerContext) -> pb.DeclineReply:
        self._caller(context)
        self.declined.append(request.reason)
        return pb.DeclineReply()

    def _getrelease(self, request: pb.ReleaseRequest, context: grpc.ServicerContext) -> pb.Release:
        self._caller(context)
        return self._say(context, "FAULT_NO_RELEASE")  # type: ignore[no-any-return]


@pytest.fixture
def toys() -> Iterator[Any]:
    """Makes started servers, and stops them all."""
    made: list[Toy] = []

    def make(initial: Tensors, **options: Any) -> Toy:
        toy = Toy(initial, **options)
        toy.start()
        made.append(toy)
        return toy

    yield make
    for toy in made:
        toy.stop()
