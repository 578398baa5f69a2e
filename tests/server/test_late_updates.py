"""Late updates through a federation and its store: decoded against their own base, folded with the right weight,
and once more after the server died, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.device import Device
from fedpress.client.pace import Measured
from fedpress.client.probe import Encoding
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.compression import registry
from fedpress.compression.codec import NOTHING
from fedpress.compression.payload import unseal
from fedpress.compression.stream import Stream
from fedpress.errors import Refused
from fedpress.params import Model, Spec, Tensors, TensorSpec, add, content_hash, from_bytes
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.protos.names import SHORT, checksum
from fedpress.server.aggregate import WeightedSum
from fedpress.server.events import ClientFailed, Event, RoundClosed, UpdateCounted
from fedpress.simulations.engines import simulate
from fedpress.simulations.engines.inline import InlineLink
from fedpress.simulations.host import Host
from fedpress.simulations.records import RoundRecord

SPEC = Spec((TensorSpec("w", (20, 20)), TensorSpec("b", (20,))))
BUFFER = ("cohort.buffer=3", "cohort.concurrency=4")
FOLD = ("cohort.late=fold", "cohort.fraction=0.4", "cohort.over_select=2", "cohort.max_staleness=4")


class Cut(Exception):
    """The server dies."""


def load_plan(out: Path, *overrides: str) -> Plan:
    quiet = ("train.trainer=idle", "evaluate.server_every=0", "evaluate.clients_every=0", "run.rounds=8")
    return load(None, [f"run.out={out}", "clients.count=6", *quiet, *overrides])


class Yard:
    """Six devices and a server in one thread, stepped in any order; the server dies as often as a test wants."""

    def __init__(self, out: Path, *overrides: str, cuts: tuple[int, ...] = ()) -> None:
        self.plan = load_plan(out, *overrides)
        self.cuts, self.counted, self.refused = set(cuts), 0, 0
        self.host = self.serve(resume=False)
        self.devices = [self.device(out, i) for i in range(self.plan.clients.count)]
        for device in self.devices:
            device.step()

    def serve(self, resume: bool) -> Host:
        initial = Model.of(IdleTrainer(SPEC).initial(self.plan.run.seed))
        return Host(self.plan, initial, self.hear, resume=resume, durable=False, clock=lambda: 0.0)

    def device(self, out: Path, i: int) -> Device:
        return Device(
            InlineLink(self.host.federation),
            Vault(out / f"c{i}", durable=False),
            IdleTrainer(SPEC, scale=0.1, examples=10 + i),
            f"c{i}",
            self.plan.task.name,
            patience=0.0,
            pace=Measured(lambda: 0.0),
            sleep=lambda _: None,
        )

    def hear(self, event: Event) -> None:
        self.refused += isinstance(event, ClientFailed) and "refused" in event.reason
        if isinstance(event, UpdateCounted) or (isinstance(event, RoundClosed) and event.record["round"]):
            self.counted += 1
            if self.counted in self.cuts:
                raise Cut

    def restart(self) -> None:
        """What was not in the store is gone; all devices call before anything else happens."""
        self.host.store.close()
        self.host = self.serve(resume=True)
        for device in self.devices:
            link, identity = device._link, device._vault.identity
            assert isinstance(link, InlineLink)
            assert identity is not None
            link._federation = self.host.federation
            link.enrol(
                pb.EnrolRequest(
                    protocol=PROTOCOL, name=device.name, key=bytes.fromhex(identity.key), capabilities=able()
                )
            )

    def safely(self, deed: Any) -> None:
        try:
            deed()
        except Cut:
            self.restart()
            self.safely(deed)

    def drive(self) -> None:
        while self.host.federation.advance():
            pass

    def play(self, seed: int = 0) -> Yard:
        """Steps of devices, drawn so that some are three times as fast as others, until the run is over."""
        order = Stream.of("order", seed)
        while not self.host.federation.finished:
            i = int(order.uniform(1)[0] * 12)
            device = self.devices[(0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5)[i]]
            self.safely(device.step)
            if i % 3 == 0:
                self.safely(self.drive)
        assert self.refused == 0
        return self

    @property
    def records(self) -> list[RoundRecord]:
        return [r for r in self.host.rounds() if r.round]

    def facts(self) -> list[Any]:
        """What happened in each round, as far as a restart must not show."""
        return [[(n, c.fate, c.staleness, c.examples) for n, c in r.clients.items()] for r in self.records]

    @property
    def model(self) -> str:
        return content_hash(self.host.federation.versions.exact)

    def remembered(self) -> dict[str, Tensors]:
        rows = self.host.store.execute("SELECT name, data FROM memories JOIN clients ON clients.id = client")
        return {name: from_bytes(data) for name, data in rows}


def able() -> pb.Capabilities:
    return pb.Capabilities(codecs=registry.ids(), trainers=["idle"])


@pytest.mark.parametrize("pacing", [BUFFER, FOLD], ids=["buffer", "fold"])
@pytest.mark.parametrize("codec", ["ef21+topk:0.1+int8", "ef:0.9+predict:0.5+ecsq:3"])
def test_a_server_that_died_again_and_again_ends_as_one_that_did_not(
    tmp_path: Path, pacing: tuple[str, ...], codec: str
) -> None:
    overrides = (f"upload.codec={codec}", *pacing)
    whole = Yard(tmp_path / "whole", *overrides).play()
    late = [s for r in whole.records for s in r.staleness]
    assert max(late) >= 2
    assert pacing is FOLD or [r.updates for r in whole.records] == [3] * 8
    twice = any(len(c.staleness) == 2 for r in whole.records for c in r.clients.values())
    assert twice or pacing is FOLD, "a late one and a fresh one of the same client in one round"
    events = whole.counted
    for name, cuts in (("often", range(2, events, 3)), ("always", range(1, events + 1))):
        cut = Yard(tmp_path / name, *overrides, cuts=tuple(cuts)).play()
        assert cut.facts() == whole.facts()
        assert cut.model == whole.model
    ours = whole.remembered()
    for name, memory in cut.remembered().items():
        assert all(np.array_equal(memory[n], array) for n, array in ours[name].items())
    for device in whole.devices:
        if device.name in ours and not device._vault.pending:
            kept = device._vault.kept.residual
            assert all(np.array_equal(kept[n], array) for n, array in ours[device.name].items())
    assert bool(ours) == codec.startswith("ef21")


def test_what_a_device_lost_it_begins_anew_also_when_both_its_updates_of_a_round_are_decoded_again(
    tmp_path: Path,
) -> None:
    """ef21: a late update against what was remembered, then one that begins anew, in one buffer; then a crash."""
    models = []
    for cut in (False, True):
        yard = Yard(tmp_path / str(cut), "upload.codec=ef21+topk:0.1+int8", "cohort.buffer=5", "cohort.concurrency=6")
        one, *others = yard.devices
        work(yard, [one, *others[:4]])
        begin(one)
        begin(others[4])
        work(yard, others)
        assert yard.host.federation.round == 3
        finish(one)
        one._vault.forget()
        work(yard, [one])
        assert len(yard.host.store.counted(3)) == 2
        if cut:
            yard.restart()
        work(yard, others[:3])
        assert yard.host.federation.round == 4
        models.append(yard.model)
    assert models[0] == models[1]


def begin(device: Device) -> None:
    """Up to the point where there is something to send."""
    for _ in range(20):
        if device._vault.pending is None:
            device.step()
    assert device._vault.pending is not None, f"{device.name} has nothing to do"


def finish(device: Device) -> None:
    while device._vault.pending is not None:
        device.step()


def work(yard: Yard, devices: list[Device]) -> None:
    for device in devices:
        begin(device)
        finish(device)
        yard.drive()


class Witness(Yard):
    """Decodes every update a second time, with what its *device* knew, and adds up what each round should come to."""

    def __init__(self, out: Path, *overrides: str) -> None:
        self.sum, self.models = WeightedSum(SPEC), [IdleTrainer(SPEC).initial(0)]
        self.encodings: dict[str, Encoding] = {}
        self.late_with_step = 0
        super().__init__(out, *overrides)

    def device(self, out: Path, i: int) -> Device:
        device = super().device(out, i)
        device._probe = lambda encoding: self.encodings.update({device.name: encoding})
        return device

    def hear(self, event: Event) -> None:
        if isinstance(event, UpdateCounted):
            pending, encoding = self.devices[int(event.name[1:])]._vault.pending, self.encodings[event.name]
            assert pending is not None
            update, _ = unseal(encoding.codec, pending.payload, NOTHING, encoding.context, SPEC)
            examples = float(pending.header.report.examples)
            self.sum.fold(update, examples, 1 / (1 + event.staleness))
            self.late_with_step += bool(event.staleness and encoding.context.step)
        elif isinstance(event, RoundClosed) and event.record["round"]:
            expected = add(self.models[-1], self.sum.mean())
            assert content_hash(event.model) == content_hash(expected)
            self.models.append(expected)
            self.sum.clear()
        super().hear(event)


@pytest.mark.parametrize("pacing", [BUFFER, FOLD], ids=["buffer", "fold"])
def test_updates_are_decoded_with_what_their_devices_knew(tmp_path: Path, pacing: tuple[str, ...]) -> None:
    settings = ("upload.codec=predict:0.5+ecsq:3", "strategy.lr=1", "cohort.discount=1", "run.rounds=16")
    witness = Witness(tmp_path, *settings, *pacing)
    witness.play(seed=1)
    assert len(witness.models) == 17
    assert witness.late_with_step >= 2


class Hand:
    """A device whose updates a test writes by hand."""

    def __init__(self, host: Host, name: str) -> None:
        self.link = InlineLink(host.federation)
        reply = self.link.enrol(pb.EnrolRequest(protocol=PROTOCOL, name=name, capabilities=able()))
        self.link.authenticate(reply.key)

    def ask(self) -> pb.Ticket:
        reply = self.link.get_work(pb.WorkRequest())
        assert reply.HasField("ticket"), reply
        return reply.ticket

    def push(self, ticket: pb.Ticket, values: list[float], examples: int) -> None:
        payload = np.array(values, "<f4").tobytes()
        header = pb.PushHeader(
            ticket=ticket.id,
            base=ticket.model[:SHORT],
            size=len(payload),
            checksum=checksum(payload),
            report=pb.Report(examples=examples),
        )
        self.link.push(header, payload)


class Trio:
    """A server of two parameters, zero at first, and three hands."""

    def __init__(self, out: Path, *overrides: str) -> None:
        raw = ("upload.codec=raw", "download.codec=raw", "clients.count=3", "cohort.discount=1")
        self.plan = load_plan(out, *raw, *overrides)
        self.heard: list[Event] = []
        self.host = Host(
            self.plan, Model.of({"w": np.zeros(2, np.float32)}), self.heard.append, durable=False, clock=lambda: 0.0
        )
        self.a, self.b, self.c = (Hand(self.host, name) for name in "abc")

    @property
    def model(self) -> list[float]:
        """After the round that is due."""
        while self.host.federation.advance():
            pass
        return [float(x) for x in self.host.federation.versions.exact["w"]]


@pytest.fixture(params=[("cohort.buffer=2", "cohort.concurrency=3"), ("cohort.late=fold", "cohort.over_select=1.5")])
def trio(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Trio]:
    made = Trio(tmp_path, "cohort.fraction=0.67", *request.param)
    yield made
    made.host.store.close()


def test_late_updates_weigh_what_the_formula_says(trio: Trio) -> None:
    a, b, c = trio.a, trio.b, trio.c
    first, second, third = a.ask(), b.ask(), c.ask()
    a.push(first, [1, 0], 10)
    b.push(second, [0, 1], 30)
    assert trio.model == [0.25, 0.75]  # 10/40, 30/40
    again, more = a.ask(), b.ask()
    c.push(third, [4, 4], 30)  # one version late: 30 examples weigh 15
    a.push(again, [0, -1], 10)
    if not trio.plan.cohort.buffer:  # rounds: the late one does not fill the cohort
        b.push(more, [2, 2], 40)
        assert trio.model == [0.25 + 140 / 80, 0.75 + 130 / 80]  # (15*4 + 40*2)/80, (15*4 - 10 + 40*2)/80
    else:
        assert trio.model == [0.25 + 60 / 40, 0.75 + 50 / 40]  # 15*4/40, (15*4 - 10)/40
    record = trio.host.rounds()[2]
    assert {name: client.staleness for name, client in record.clients.items()}["c"] == (1,)
    assert record.staleness[-1] == 1
    assert [e.staleness for e in trio.heard if isinstance(e, UpdateCounted)][:4] == [0, 0, 1, 0]


def test_one_late_update_alone_is_shortened(tmp_path: Path) -> None:
    """FedAsync: without others to take the mean with, the discount still counts."""
    trio = Trio(tmp_path, "cohort.buffer=1", "cohort.concurrency=3")
    first, second, third = trio.a.ask(), trio.b.ask(), trio.c.ask()
    trio.a.push(first, [1, 1], 10)
    assert trio.model == [1, 1]
    trio.b.push(second, [1, 0], 99)
    assert trio.model == [1.5, 1]
    trio.c.push(third, [3, 0], 7)
    assert trio.model == [2.5, 1]
    trio.host.store.close()


def test_fedasync_takes_the_mean_of_the_newest_model_and_a_late_clients(tmp_path: Path) -> None:
    # alpha = 1/2, discount 1, all work on x = (0, 0). First a = 1/2: x = 1/2 * (1, 1). One late, a = 1/4 and the
    # client's model (1, 0): x = 3/4 * (1/2, 1/2) + 1/4 * (1, 0). Two late, a = 1/6, (3, 0): 5/6 of it, and (1/2, 0).
    trio = Trio(tmp_path, "strategy.name=fedasync", "strategy.alpha=0.5", "cohort.buffer=1", "cohort.concurrency=3")
    first, second, third = trio.a.ask(), trio.b.ask(), trio.c.ask()
    trio.a.push(first, [1, 1], 10)
    assert trio.model == [0.5, 0.5]
    trio.b.push(second, [1, 0], 99)
    assert trio.model == [0.625, 0.375]
    trio.c.push(third, [3, 0], 7)
    assert trio.model == pytest.approx([5 / 6 * 0.625 + 0.5, 5 / 6 * 0.375])
    trio.host.store.close()


def test_fedasync_takes_the_change_alone_where_its_base_cannot_be_made_again(tmp_path: Path) -> None:
    """Whole models are not kept: a quarter of the change, and no pull back, nor one from what devices see: for them,
    1/2 + 1/1024 is 1/2."""
    words = ("strategy.name=fedasync", "strategy.alpha=0.5", "cohort.buffer=1", "cohort.concurrency=3")
    trio = Trio(tmp_path, *words, "download.mode=full", "download.codec=bf16")
    trio.a.push(trio.a.ask(), [1 + 1 / 512, 1], 10)
    assert trio.model == [0.5 + 1 / 1024, 0.5]
    late = trio.b.ask()
    trio.a.push(trio.a.ask(), [0, 1], 10)
    assert trio.model == [0.5 + 1 / 1024, 1]
    trio.b.push(late, [1, 0], 10)
    assert trio.model == [0.75 + 1 / 1024, 1]
    trio.host.store.close()


def test_fedbuff_takes_the_plain_mean_of_updates_that_staleness_has_shortened(tmp_path: Path) -> None:
    trio = Trio(tmp_path, "strategy.name=fedbuff", "strategy.lr=2", "cohort.buffer=2", "cohort.concurrency=3")
    first, second, third = trio.a.ask(), trio.b.ask(), trio.c.ask()
    trio.a.push(first, [1, 0], 10)
    trio.b.push(second, [0, 1], 30)
    assert trio.model == [1, 1]  # 2 * 1/2 of each, whatever their examples
    trio.c.push(third, [4, 4], 30)
    trio.a.push(trio.a.ask(), [0, -1], 10)
    assert trio.model == [3, 2]  # 2 * ((4, 4) / 2 + (0, -1)) / 2 further
    trio.host.store.close()


def test_a_client_with_two_updates_in_a_round_loses_neither_in_the_record(tmp_path: Path) -> None:
    trio = Trio(tmp_path, "cohort.buffer=2", "cohort.concurrency=3")
    first, second, third = trio.a.ask(), trio.b.ask(), trio.c.ask()
    trio.a.push(first, [1, 0], 10)
    trio.b.push(second, [1, 0], 10)
    assert trio.model == [1, 0]
    trio.c.push(third, [1, 0], 10)
    trio.c.push(trio.c.ask(), [1, 0], 30)
    assert trio.model == [1.875, 0]  # 1 + (5 + 30)/40
    record = trio.host.rounds()[2]
    assert (record.updates, record.cohort, record.bytes_up) == (2, 2, 16)
    client = record.clients["c"]
    assert (client.fate, client.staleness, client.bytes_up, client.examples) == ("counted", (1, 0), 16, 30)
    trio.host.store.close()


def test_what_comes_later_than_promised_is_refused_and_says_so(tmp_path: Path) -> None:
    trio = Trio(tmp_path, "cohort.buffer=1", "cohort.concurrency=3", "cohort.max_staleness=1")
    slow = trio.c.ask()
    for _ in range(2):
        trio.a.push(trio.a.ask(), [1, 1], 10)
        assert trio.model
    with pytest.raises(Refused, match="round 1 has ended; the run is in round 3") as refusal:
        trio.c.push(slow, [1, 1], 10)
    assert refusal.value.fault == "FAULT_STALE_ROUND"
    assert [e.name for e in trio.heard if isinstance(e, ClientFailed)] == ["c"]
    trio.c.push(trio.c.ask(), [1, 1], 10)
    trio.host.store.close()


def test_an_update_whose_base_has_left_the_history_is_refused_and_says_so(tmp_path: Path) -> None:
    """A run that goes on with a shorter history than it began with."""
    trio = Trio(tmp_path, "cohort.buffer=1", "cohort.concurrency=3")
    slow = trio.c.ask()
    trio.a.push(trio.a.ask(), [1, 1], 10)
    assert trio.model == [1, 1]
    trio.host.store.close()
    shorter = trio.plan.model_copy(update={"download": trio.plan.download.model_copy(update={"history": 2})})
    with Host(shorter, Model.of({"w": np.zeros(2, np.float32)}), resume=True, durable=False, clock=lambda: 0.0) as host:
        federation = host.federation
        for hand in (trio.a, trio.b, trio.c):
            hand.link._federation = federation
        work = trio.a.ask(), trio.b.ask()
        for hand, ticket in zip((trio.a, trio.b), work, strict=True):
            hand.push(ticket, [1, 1], 10)
            assert federation.advance()
        with pytest.raises(Refused, match="Version 0, which the update builds on, has left the history") as refusal:
            trio.c.push(slow, [1, 1], 10)
        assert refusal.value.fault == "FAULT_STALE_ROUND"
        assert trio.c.ask().round == 4


def test_a_buffer_as_large_as_the_fleet_on_one_version_is_fedavg(tmp_path: Path) -> None:
    codecs = ["upload.codec=ef+nmse:0.4", "download.codec=nmse:0.4,ladder=true"]
    settings = [f"run.out={tmp_path}", "engine.name=inline", "run.rounds=3", "clients.count=4", *codecs]
    rounds = simulate(load(None, [*settings, "run.name=rounds"])).summary
    buffer = simulate(load(None, [*settings, "run.name=buffer", "cohort.buffer=4"])).summary
    assert buffer.model == rounds.model
    assert (buffer.bytes_up, buffer.bytes_down) == (rounds.bytes_up, rounds.bytes_down)


def test_whole_models_need_no_history_of_payloads(tmp_path: Path) -> None:
    yard = Yard(tmp_path, "download.mode=full", "download.codec=bf16", "upload.codec=ef+ecsq:3", *BUFFER).play()
    assert max(s for r in yard.records for s in r.staleness) >= 2
    assert len(yard.host.store.versions.all()) == 1
