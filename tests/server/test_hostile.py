"""Devices that lie, stall and flood, against a real server: each costs only itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fedpress.errors import Refused
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import SHORT, checksum
from fedpress.server.events import RoundClosed

Start = Callable[..., Any]
SIZE = 1000
RAW = ("upload.codec=raw", "download.codec=raw")


def update(ticket: pb.Ticket, value: float = 0.25, dtype: str = "<f4") -> tuple[pb.PushHeader, bytes]:
    """A valid update in codec ``raw`` (or fp16, by ``dtype``): ``value`` for every parameter."""
    payload = np.full(SIZE, value, dtype).tobytes()
    return pb.PushHeader(
        ticket=ticket.id,
        base=ticket.model[:SHORT],
        size=len(payload),
        checksum=checksum(payload),
        report=pb.Report(examples=10),
    ), payload


def push(caller: Any, parts: Iterator[Any], seconds: float = 10.0) -> Any:
    """An upload whose parts a test times itself; a message, or bytes that are none."""
    call = caller.link._channel.stream_unary(
        "/fedpress.v1.Fleet/Push",
        lambda part: part if isinstance(part, bytes) else part.SerializeToString(),
        pb.PushReply.FromString,
    )
    return call.future(parts, metadata=caller.link._identity, timeout=seconds)


def fault(call: Callable[[], object]) -> str:
    """The fault that a call, over the link or bare, is refused with."""
    with pytest.raises((Refused, grpc.RpcError)) as refusal:
        call()
    error: Any = refusal.value
    return error.fault if isinstance(error, Refused) else dict(error.trailing_metadata()).get("fedpress-fault", "")


def header(ticket: pb.Ticket, **changed: Any) -> pb.PushHeader:
    """The header of ``update``, with fields changed."""
    head, _ = update(ticket)
    head.MergeFrom(pb.PushHeader(**changed))
    return head


def test_silent_uploads_hold_no_slot(fleet: Start, caller: Any) -> None:
    server = fleet(*RAW, "run.rounds=1", "server.max_streams=2")
    silent, good = caller(server, "silent"), caller(server, "good")
    ticket = good.ticket()
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    held = [push(silent, nothing(), 20) for _ in range(4)]
    try:
        head, payload = update(ticket)
        sent = push(good, iter([pb.PushPart(header=head), pb.PushPart(data=payload)]), 5)
        assert not sent.result().duplicate
    finally:
        over.set()
        for call in held:
            call.cancel()


def test_absurd_waits_are_answered(fleet: Start, caller: Any) -> None:
    server = fleet("clients.count=2", "server.long_poll_s=0.5")
    one = caller(server, "one")
    ask = one.link._channel.unary_unary(
        "/fedpress.v1.Fleet/GetWork", pb.WorkRequest.SerializeToString, pb.WorkReply.FromString
    )
    for seconds in (float("nan"), float("inf"), -float("inf"), -1.0, 1e308):
        reply = ask(pb.WorkRequest(wait_seconds=seconds), metadata=one.link._identity, timeout=5)
        assert reply.WhichOneof("answer") == "wait", seconds


def test_finite_but_enormous_updates_do_not_end_the_run(fleet: Start, caller: Any) -> None:
    server = fleet(*RAW, "run.rounds=2")
    evil, good = caller(server, "evil"), caller(server, "good")
    held = b""
    for round_ in (1, 2):
        tickets = [c.ticket(held) for c in (evil, good)]
        assert fault(lambda: evil.link.push(*update(tickets[0], 3.3e38))) == "FAULT_MALFORMED"  # noqa: B023
        good.link.push(*update(tickets[1]))
        assert server.closed(round_)[-1]["updates"] == 1
        held = tickets[1].model
    before, after = server.trainer.initial(0), server.events(RoundClosed)[-1].model
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array + np.float32(0.25) + np.float32(0.25))


@pytest.mark.parametrize(
    "report",
    [
        pb.Report(examples=2**63),
        pb.Report(examples=0),
        pb.Report(examples=10, held_out=2**64 - 1),
        pb.Report(examples=10, loss=float("nan")),
        pb.Report(examples=10, accuracy=float("inf")),
        pb.Report(examples=10, held_out_loss=1e38),
        pb.Report(examples=10, others={f"m{i}": 0.0 for i in range(3000)}),
        pb.Report(examples=10, others={"\x1b[2J": 0.0}),
        pb.Report(examples=10, others={"x" * 50_000: 0.0}),
    ],
    ids=["dominating", "weightless", "held-out", "nan", "inf", "huge", "thousands", "escape", "long-name"],
)
def test_a_report_that_cannot_be_true_is_refused(fleet: Start, caller: Any, report: pb.Report) -> None:
    server = fleet(*RAW, "run.rounds=1")
    evil, good = caller(server, "evil"), caller(server, "good")
    ticket, other = evil.ticket(), good.ticket()
    head, payload = update(ticket)
    head.report.CopyFrom(report)
    assert fault(lambda: evil.link.push(head, payload)) == "FAULT_MALFORMED"
    good.link.push(*update(other))
    (closed,) = server.closed(1)
    assert (closed["updates"], closed["rejected"]) == (1, 1)


def test_uploads_out_of_order_are_refused_and_the_true_one_still_counts(fleet: Start, caller: Any) -> None:
    server = fleet(*RAW, "run.rounds=1", "clients.count=1")
    one = caller(server, "one")
    ticket = one.ticket()
    head, payload = update(ticket)
    odd: list[tuple[list[Any], str]] = [
        ([b"\xff\xff\xff"], ""),
        ([], "FAULT_MALFORMED"),
        ([pb.PushPart()], "FAULT_MALFORMED"),
        ([pb.PushPart(data=b"x")], "FAULT_MALFORMED"),
        ([pb.PushPart(header=header(ticket, size=2**64 - 1))], "FAULT_UPDATE_TOO_LARGE"),
        ([pb.PushPart(header=header(ticket, offset=2**64 - 1))], "FAULT_BAD_OFFSET"),
        ([pb.PushPart(header=header(ticket, offset=1))], "FAULT_BAD_OFFSET"),
        ([pb.PushPart(header=head), pb.PushPart(header=head)], "FAULT_MALFORMED"),
        ([pb.PushPart(header=head), pb.PushPart(data=payload + b"x")], "FAULT_UPDATE_TOO_LARGE"),
    ]
    for parts, expected in odd:
        assert fault(push(one, iter(parts)).result) == expected, parts[:1]
    assert not one.link.push(head, payload).duplicate
    assert server.closed(1)[0]["updates"] == 1


def test_a_stale_stream_does_not_end_the_one_that_took_over(fleet: Start, caller: Any) -> None:
    server = fleet(*RAW, "run.rounds=1", "clients.count=1")
    one = caller(server, "one")
    head, payload = update(one.ticket())
    stale, fresh = threading.Event(), threading.Event()

    def old() -> Iterator[pb.PushPart]:
        yield pb.PushPart(header=head)
        yield pb.PushPart(data=payload[:1000])
        stale.wait(10)
        yield pb.PushPart(data=payload[1000:2000])

    first = push(one, old())
    while one.link.offset(head.ticket).offset < 1000:
        pass
    resumed = header(pb.Ticket(id=head.ticket, model=head.base), offset=1000)

    def new() -> Iterator[pb.PushPart]:
        yield pb.PushPart(header=resumed)
        yield pb.PushPart(data=payload[1000:3000])
        fresh.wait(10)
        yield pb.PushPart(data=payload[3000:])

    second = push(one, new())
    while one.link.offset(head.ticket).offset < 3000:
        pass
    stale.set()
    assert fault(first.result) == "FAULT_BAD_OFFSET"
    fresh.set()
    assert not second.result().duplicate


def test_an_evaluation_takes_no_payload(fleet: Start, caller: Any) -> None:
    server = fleet(*RAW, "run.rounds=1", "clients.count=1", "evaluate.clients_every=1")
    one = caller(server, "one")
    first = one.ticket()
    one.link.push(*update(first))
    server.closed(1)
    ticket = one.ticket(first.model)
    assert ticket.work == pb.WORK_EVALUATE
    assert fault(lambda: one.link.push(*update(ticket))) == "FAULT_UPDATE_TOO_LARGE"
    empty = pb.PushHeader(ticket=ticket.id, base=ticket.model[:SHORT], checksum=checksum(b""))
    assert not one.link.push(empty, b"").duplicate


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x1b[2J", "a\u202eb", "a\nb"])
def test_names_that_could_move_a_cursor_are_refused(fleet: Start, caller: Any, name: str) -> None:
    server = fleet()
    assert fault(lambda: caller(server, name)) == "FAULT_MALFORMED"


def test_a_round_ends_with_the_codec_it_began_with(fleet: Start, caller: Any, tmp_path: Path) -> None:
    common = ("run.rounds=1", "download.codec=raw")
    first = fleet(*common, "upload.codec=fp16")
    one, two = caller(first, "one"), caller(first, "two")
    tickets = one.ticket(), two.ticket()
    one.link.push(*update(tickets[0], dtype="<f2"))
    first.__exit__()

    second = fleet(*common, "upload.codec=bf16", resume=True)  # payloads of the same length: nothing else would tell
    link = type(one.link)(second.address)
    link.authenticate(two.reply.key)
    two.link = link
    assert two.ticket(tickets[1].model).upload_codec == "fp16"
    link.push(*update(tickets[1], dtype="<f2"))
    second.closed(1)
    before, after = second.trainer.initial(0), second.events(RoundClosed)[-1].model
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array + np.float32(0.25))
