"""A real server on loopback: what it does with devices that behave, and with those that do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.payload import seal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import FedpressError, PlanError, Refused
from fedpress.params import unflatten
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import SHORT, checksum
from fedpress.server.events import ClientFailed, RoundClosed, UpdateCounted
from fedpress.simulations.records import read_rounds

Start = Callable[..., Any]


def update(ticket: pb.Ticket, size: int, value: float = 1e-3) -> tuple[pb.PushHeader, bytes]:
    """A valid update for a ticket: the same small step for every parameter."""
    from fedpress.client.trainers.idle import IdleTrainer

    spec = IdleTrainer.of_size(size).spec
    tensors = unflatten(np.full(size, value, np.float32), spec)
    codec = parse(ticket.upload_codec)
    payload, _ = seal(codec, tensors, codec.init(spec) or NOTHING, Context(ticket.seed, ticket.round), Stream(1))
    return header(ticket, payload), payload


def header(ticket: pb.Ticket, payload: bytes) -> pb.PushHeader:
    return pb.PushHeader(
        ticket=ticket.id,
        base=ticket.model[:SHORT],
        size=len(payload),
        checksum=checksum(payload),
        report=pb.Report(examples=10),
    )


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refusal:
        call()
    return refusal.value.fault


def test_devices_finish_a_run_and_both_ends_counted_the_same_payloads(fleet: Start, tmp_path: Path) -> None:
    server = fleet("upload.codec=ef+topk:0.1+int8")
    devices = [server.device(f"device-{i}", tmp_path / "vaults") for i in range(2)]
    threads = [threading.Thread(target=d.run) for d in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [d.stopped.reason for d in devices if d.stopped] == ["the run is finished"] * 2
    server.closed(2)
    rounds = read_rounds(server.plan.directory)
    assert [r.round for r in rounds] == [0, 1, 2]
    assert [r.updates for r in rounds] == [0, 2, 2]
    assert sum(r.bytes_up for r in rounds) == sum(e.payload for e in server.events(UpdateCounted))
    assert all(r.bytes_up_uncompressed == 2 * 4 * 1000 for r in rounds[1:])


def test_two_updates_of_equal_weight_are_averaged(fleet: Start, caller: Any) -> None:
    server = fleet("upload.codec=raw", "download.codec=raw", "run.rounds=1")
    before = server.trainer.initial(0)
    callers = [caller(server, f"c{i}") for i in range(2)]
    for c, value in zip(callers, (0.25, 0.75), strict=True):
        head, payload = update(c.ticket(), 1000, value)
        assert not c.link.push(head, payload).duplicate
    server.closed(1)
    after = server.events(RoundClosed)[-1].model
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array + np.float32(0.5))


def test_bad_updates_are_refused_by_name_and_the_round_goes_on(fleet: Start, caller: Any) -> None:
    server = fleet("upload.codec=raw", "run.rounds=1", "clients.count=5", "cohort.min_clients=5", "cohort.deadline_s=3")
    good, short, flipped, nan, large = (caller(server, n) for n in ("good", "short", "flipped", "nan", "large"))
    tickets = {c: c.ticket() for c in (good, short, flipped, nan, large)}

    head, payload = update(tickets[short], 1000)
    truncated = payload[:-4]
    assert fault(lambda: short.link.push(header(tickets[short], truncated), truncated)) == "FAULT_MALFORMED"

    head, payload = update(tickets[flipped], 1000)
    damaged = payload[:100] + bytes([payload[100] ^ 1]) + payload[101:]
    assert fault(lambda: flipped.link.push(head, damaged)) == "FAULT_MALFORMED"

    poison = np.full(1000, np.nan, "<f4").tobytes()
    assert fault(lambda: nan.link.push(header(tickets[nan], poison), poison)) == "FAULT_MALFORMED"

    big = bytes(5000)
    assert fault(lambda: large.link.push(header(tickets[large], big), big)) == "FAULT_UPDATE_TOO_LARGE"

    stranger = pb.PushHeader(ticket=bytes(8), base=tickets[good].model[:SHORT])
    assert fault(lambda: good.link.push(stranger, b"")) == "FAULT_UNKNOWN_TICKET"
    assert fault(lambda: good.link.offset(tickets[nan].id)) == "FAULT_UNKNOWN_TICKET"
    head, payload = update(tickets[good], 1000)
    head.base = b"\xff" * SHORT
    assert fault(lambda: good.link.push(head, payload)) == "FAULT_WRONG_MODEL"
    head.base = tickets[good].model[:SHORT]
    assert not good.link.push(head, payload).duplicate
    assert good.link.push(head, payload).duplicate  # a replay is acknowledged, and counted once

    (closed,) = server.closed(1)
    assert {e.name for e in server.events(ClientFailed)} == {"short", "flipped", "nan"}
    assert (closed["round"], closed["updates"], closed["rejected"]) == (1, 1, 3)


def test_an_upload_resumes_at_the_byte_where_it_broke(fleet: Start, caller: Any) -> None:
    server = fleet("upload.codec=raw", "run.rounds=1", "clients.count=1", parameters=200_000)
    device = caller(server, "mobile")
    ticket = device.ticket()
    head, payload = update(ticket, 200_000)
    half = 300_000

    class Cut(Exception):
        pass

    def parts() -> Any:
        yield pb.PushPart(header=head)
        for at in range(0, half, 50_000):
            yield pb.PushPart(data=payload[at : at + 50_000])
        raise Cut

    call = device.link._channel.stream_unary(
        "/fedpress.v1.Fleet/Push", pb.PushPart.SerializeToString, pb.PushReply.FromString
    )
    with pytest.raises(grpc.RpcError):
        call(parts(), metadata=device.link._identity)
    offset = device.link.offset(ticket.id)
    assert 0 < offset.offset <= half
    head.offset = offset.offset
    assert not device.link.push(head, payload).duplicate
    assert device.link.offset(ticket.id).acknowledged


def test_a_server_that_was_killed_goes_on_in_the_same_round(fleet: Start, caller: Any) -> None:
    first = fleet("run.rounds=1", "upload.codec=raw", "download.codec=raw")
    one, two = caller(first, "one"), caller(first, "two")
    ticket_one, ticket_two = one.ticket(), two.ticket()
    head, payload = update(ticket_one, 1000, 0.25)
    one.link.push(head, payload)
    first.__exit__()

    second = fleet("run.rounds=1", "upload.codec=raw", "download.codec=raw", resume=True)
    one.link, two.link = (_reconnected(second, c) for c in (one, two))
    assert one.link.push(head, payload).duplicate  # acknowledged before: not asked for again, not counted twice
    assert two.ticket().id == ticket_two.id
    head, payload = update(ticket_two, 1000, 0.75)
    two.link.push(head, payload)
    second.closed(1)
    before, after = second.trainer.initial(0), second.events(RoundClosed)[-1].model
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array + np.float32(0.5))


def _reconnected(server: Any, old: Any) -> Any:
    from fedpress.client.grpc_link import GrpcLink

    link = GrpcLink(server.address)
    link.authenticate(old.reply.key)
    return link


def test_a_wrong_key_a_taken_name_and_an_incapable_device_are_refused(fleet: Start, caller: Any) -> None:
    server = fleet()
    one = caller(server, "one")
    one.link.authenticate(bytes(16))
    assert fault(lambda: one.link.get_work(pb.WorkRequest())) == "FAULT_NOT_ENROLLED"
    assert fault(lambda: caller(server, "one")) == "FAULT_NOT_ENROLLED"
    able = pb.Capabilities(codecs=["raw"], trainers=["idle"])
    assert fault(lambda: one.link.enrol(pb.EnrolRequest(protocol=2, name="x", capabilities=able))) == "FAULT_INCAPABLE"
    assert fault(lambda: one.link.enrol(pb.EnrolRequest(protocol=1, name="x"))) == "FAULT_PROTOCOL"
    able = pb.Capabilities(codecs=parse_ids(), trainers=["idle"])
    for name in ("one", "renamed"):  # the first reply was lost, the device knows only its key
        again = one.link.enrol(pb.EnrolRequest(protocol=2, name=name, key=one.reply.key, capabilities=able))
        assert (again.client_id, again.key) == (one.reply.client_id, one.reply.key)
    chosen = one.link.enrol(pb.EnrolRequest(protocol=2, name="two", key=b"0123456789abcdef", capabilities=able))
    assert chosen.key == b"0123456789abcdef"
    assert chosen.client_id != one.reply.client_id


def parse_ids() -> tuple[str, ...]:
    from fedpress.compression import registry

    return registry.ids()


def test_a_port_in_use_and_a_run_that_is_there_are_said_plainly(fleet: Start, tmp_path: Path) -> None:
    server = fleet()
    with pytest.raises(PlanError, match="--resume"):
        fleet()
    from fedpress.server.service import Service

    plan = load(None, [f"server.port={server.service.port}"])
    import asyncio

    with pytest.raises(FedpressError, match="in use"):
        asyncio.run(_start(Service(server.federation, plan.server)))
    public = load(None, ["server.host=0.0.0.0"])
    with pytest.raises(FedpressError, match="TLS"):
        asyncio.run(_start(Service(server.federation, public.server)))


async def _start(service: Any) -> None:
    try:
        await service.start()
    finally:
        await service.stop()
