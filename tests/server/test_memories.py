"""What the server remembers of clients for codecs such as ``ef21``: alike on both ends, whatever happens to either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.trainers.idle import IdleTrainer
from fedpress.compression import registry
from fedpress.errors import PlanError, Refused
from fedpress.params import Model, from_bytes
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.protos.names import SHORT, checksum
from fedpress.server.events import ClientFailed, Event, RoundClosed, UpdateCounted
from fedpress.server.run import check
from fedpress.server.store import Store
from fedpress.simulations.engines import simulate
from fedpress.simulations.host import STORE_FILE, Host
from fedpress.simulations.results import Result

CODEC = "ef21+topk:0.05+int8"


class Cut(Exception):
    """The server dies."""


def after_round(number: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, RoundClosed) and event.record["round"] == number


def amid_round(number: int) -> Callable[[Event], bool]:
    """One update of the round was acknowledged, the others are not here yet."""
    return lambda event: isinstance(event, UpdateCounted) and event.round == number


class Digits:
    """A run of three devices on real digits, cut as often as a test wants."""

    def __init__(self, out: Path) -> None:
        short = ("engine.name=inline", "run.rounds=5", "clients.count=3", "train.epochs=3", "evaluate.clients_every=0")
        self.plan: Plan = load(None, [f"run.out={out}", f"upload.codec={CODEC}", *short])
        self.failed: list[str] = []

    def run(self, until: Callable[[Event], bool] = lambda _: False) -> Result | None:
        """To the end, or to the first event that ``until`` names; from where the run stopped before."""

        def listen(event: Event) -> None:
            if isinstance(event, ClientFailed):
                self.failed.append(event.reason)
            if until(event):
                raise Cut

        try:
            return simulate(self.plan, listen, resume=self.plan.directory.exists())
        except Cut:
            return None

    def finish(self) -> Result:
        """To the end; both ends remember alike then, and the server of each client only one thing."""
        result = self.run()
        assert result is not None
        assert not self.failed
        assert [r.updates for r in result.rounds] == [0, *[3] * 5]
        assert self.remembered() == 3
        return result

    def remembered(self) -> int:
        store = Store(self.plan.directory / STORE_FILE)
        rows = store.execute("SELECT name, data FROM memories JOIN clients ON clients.id = client").fetchall()
        store.close()
        for name, data in rows:
            own, memory = from_bytes(self.state(name).read_bytes()), from_bytes(data)
            assert memory
            assert all(np.array_equal(own[f"residual/{n}"], array) for n, array in memory.items())
        return len(rows)

    @property
    def names(self) -> list[str]:
        return sorted(p.name for p in (self.plan.directory / "clients").iterdir())

    def state(self, name: str) -> Path:
        return self.plan.directory / "clients" / name / "state.safetensors"


@pytest.mark.parametrize("cut", [after_round(2), amid_round(1), amid_round(3)], ids=["after 2", "amid 1", "amid 3"])
def test_a_server_that_was_cut_remembers_as_one_that_was_not(tmp_path: Path, cut: Callable[[Event], bool]) -> None:
    whole, made = Digits(tmp_path / "whole").finish(), Digits(tmp_path / "cut")
    assert made.run(cut) is None
    assert made.finish().summary.model == whole.summary.model


def test_a_device_that_lost_or_mistakes_what_it_remembers_starts_anew_and_so_does_the_server(tmp_path: Path) -> None:
    whole = Digits(tmp_path / "whole").finish()
    wiped, cut, old = (Digits(tmp_path / name) for name in ("wiped", "cut", "old"))

    wiped.run(after_round(2))
    wiped.state(wiped.names[0]).unlink()
    wiped_result = wiped.finish()
    assert wiped_result.summary.model != whole.summary.model
    assert wiped_result.summary.accuracy == pytest.approx(whole.summary.accuracy, abs=0.03)

    cut.run(after_round(2))
    cut.state(cut.names[0]).unlink()
    cut.run(amid_round(3))
    assert cut.finish().summary.model == wiped_result.summary.model

    old.run(after_round(1))
    backup = tmp_path / "backup"
    shutil.copy(old.state(old.names[0]), backup)
    old.run(after_round(2))
    shutil.copy(backup, old.state(old.names[0]))
    assert old.finish().summary.model == wiped_result.summary.model


def test_what_the_server_does_not_remember_is_refused_and_what_starts_anew_is_not(
    fleet: Callable[..., Any], caller: Any
) -> None:
    server = fleet("upload.codec=ef21+raw", "download.codec=raw", "run.rounds=1")
    one, other = caller(server, "one"), caller(server, "other")
    ticket = one.ticket()
    payload = np.full(1000, 0.25, "<f4").tobytes()
    header = pb.PushHeader(
        ticket=ticket.id,
        base=ticket.model[:SHORT],
        size=len(payload),
        checksum=checksum(payload),
        report=pb.Report(examples=10),
        memory=7,
    )
    with pytest.raises(Refused) as refusal:
        one.link.push(header, payload)
    assert refusal.value.fault == "FAULT_WRONG_MEMORY"
    assert one.ticket().id == ticket.id, "it may try again"
    header.memory = 0
    one.link.push(header, payload)
    other.link.decline(other.ticket().id, "no need")
    assert server.closed(1)[0]["updates"] == 1


def small(tmp_path: Path, *overrides: str) -> tuple[Plan, Model]:
    """60,000 parameters: twice 240 kB are remembered of each client."""
    settings = [f"run.out={tmp_path}", "train.trainer=idle", "clients.count=2", "upload.codec=ef21+int8", *overrides]
    return load(None, settings), Model.of(IdleTrainer.of_size(60_000).initial(0))


def test_more_clients_than_the_server_can_remember_are_refused_by_the_plan(tmp_path: Path) -> None:
    for fits in (["server.memory_mb=1"], ["server.memory_mb=0", "upload.codec=ef+int8"]):
        plan, model = small(tmp_path, *fits)
        check(plan, model.spec)
    for refuse in (lambda plan, model: check(plan, model.spec), lambda plan, model: Host(plan, model).store.close()):
        with pytest.raises(PlanError, match=r"server.memory_mb of at least 3, got 1: .*'ef21\+int8'.* of 5 clients"):
            refuse(*small(tmp_path, "server.memory_mb=1", "clients.count=5"))


def test_more_devices_than_the_server_can_remember_are_turned_away(tmp_path: Path) -> None:
    plan, model = small(tmp_path, "server.memory_mb=1")

    def request(name: str) -> pb.EnrolRequest:
        capabilities = pb.Capabilities(codecs=registry.ids(), trainers=["idle"])
        return pb.EnrolRequest(protocol=PROTOCOL, name=name, key=name.encode() * 16, capabilities=capabilities)

    with Host(plan, model, durable=False) as host:
        for name in ("a", "b", "a"):
            host.federation.enrol(request(name))
        with pytest.raises(Refused, match="as many devices as it can hold"):
            host.federation.enrol(request("c"))
