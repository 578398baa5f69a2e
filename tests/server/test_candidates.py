"""What is known of clients follows the store: counted as it happens, or made anew after a crash, it is the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpress.client.session import State
from fedpress.params import Spec, TensorSpec
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server.candidates import Candidates
from fedpress.server.choice import Choice
from fedpress.server.enrolment import Enrolment
from fedpress.server.events import RoundOpened
from fedpress.server.leases import Fate, Lease
from fedpress.server.selection.candidate import Condition
from fedpress.server.store import Store, Traffic

SPEC = Spec((TensorSpec("w", (2,)),))
FATES = st.sampled_from([Fate.COUNTED, Fate.STALE, Fate.REJECTED, Fate.DECLINED, Fate.OPEN])
ROUNDS = st.lists(st.lists(st.tuples(st.integers(0, 3), FATES), unique_by=lambda lease: lease[0]), max_size=8)
counter = itertools.count()


def enrolled(store: Store, names: str) -> tuple[Enrolment, list[str]]:
    made = Enrolment(store, (), "idle", SPEC)
    able = pb.Capabilities(trainers=["idle"], link=pb.LinkRates(up=1000, down=2000))
    requests = (
        pb.EnrolRequest(protocol=PROTOCOL, name=name, key=bytes(15) + name.encode(), capabilities=able)
        for name in names
    )
    return made, [made.admit(request)[0].id for request in requests]


@given(ROUNDS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_a_crash_the_same_is_known(tmp_path: Path, rounds: list[list[tuple[int, Fate]]]) -> None:
    store = Store(tmp_path / f"{next(counter)}.sqlite", durable=False)
    enrolment, ids = enrolled(store, "abcd")
    live = Candidates(store, enrolment)
    for number, cohort in enumerate(rounds, 1):
        leases = [Lease(f"{number}-{i}", ids[i], number) for i, _ in cohort]
        store.add_leases(leases, {lease.id: Choice("raw", "") for lease in leases})
        for lease in leases:
            live.invited(lease.client, number)
        for lease, (i, fate) in zip(leases, cohort, strict=True):
            traffic = Traffic(100 * number, i, 1)
            report = pb.Report(examples=10 + i, loss=0.1 * number, train_seconds=0.3, encode_seconds=0.1 * i)
            said = report.SerializeToString() if fate is Fate.COUNTED else b""
            store.end_lease(lease.id, number, fate, traffic, said)
            if fate is Fate.COUNTED:
                live.reported(lease.client, report, traffic)
        store.set_round(number, {"seconds": number / 3})
        for lease, (_, fate) in zip(leases, cohort, strict=True):
            if fate is Fate.STALE:
                live.late(lease.client, number / 3)
    anew = Candidates(store, Enrolment(store, (), "idle", SPEC))
    for client, name in zip(ids, "abcd", strict=True):
        assert live(client, name) == anew(client, name)
    store.close()


def test_a_candidate_holds_what_was_said_and_measured(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite", durable=False)
    enrolment, (client,) = enrolled(store, "a")
    known = Candidates(store, enrolment)
    assert known(client, "a").participations == 0
    assert known(client, "a").condition == Condition()
    known.invited(client, 3)
    known.late(client, 60.0)
    assert known(client, "a").seconds == 60.0
    known.invited(client, 4)
    known.reported(client, pb.Report(examples=7, loss=0.5, train_seconds=1, encode_seconds=0.5), Traffic(500, 4000, 1))
    enrolment.changed(client, pb.Condition(charging=False))
    found = known(client, "a")
    assert (found.examples, found.loss, found.participations, found.last_round) == (7, 0.5, 2, 4)
    assert found.seconds == 1.5 + 500 / 1000 + 4000 / 2000
    assert found.condition == Condition(charging=False)
    assert Candidates(store, Enrolment(store, (), "idle", SPEC))(client, "a").condition == Condition(charging=False)
    store.close()


def test_only_devices_on_mains_power_are_invited_and_silent_ones_as_if_they_were(
    fleet: Callable[..., Any], tmp_path: Path
) -> None:
    server = fleet('cohort.require=["charging"]', "clients.count=3", "server.long_poll_s=0")
    now = {"plugged": pb.Condition(charging=True), "phone": pb.Condition(charging=False), "silent": pb.Condition()}
    devices = {
        name: server.device(name, tmp_path / "vaults", patience=0.0, condition=partial(now.__getitem__, name))
        for name in now
    }

    def work(name: str, until: State) -> None:
        for _ in range(50):
            devices[name].step()
            if devices[name].session.state is until:
                return
        raise AssertionError(devices[name].session.action)

    for name in devices:
        work(name, State.IDLE)
    devices["phone"].step()
    assert [e.cohort for e in server.events(RoundOpened)] == [("plugged", "silent")]
    work("plugged", State.COMMITTING)
    now["phone"], now["plugged"] = pb.Condition(charging=True), pb.Condition(charging=False, busy=True)
    for name in ("phone", "plugged"):
        work(name, State.IDLE)  # whoever waits rests first
        work(name, State.IDLE)
        work(name, State.IDLE)
    work("silent", State.COMMITTING)
    server.closed(1)
    assert [e.cohort for e in server.events(RoundOpened)] == [("plugged", "silent"), ("phone", "silent")]


def test_a_condition_travels_only_when_it_changes(tmp_path: Path, fleet: Callable[..., Any]) -> None:
    server = fleet("clients.count=2", "server.long_poll_s=0")
    said: list[pb.Condition] = [pb.Condition()]
    device = server.device("a", tmp_path / "vaults", patience=0.0, condition=lambda: said[-1])
    asked: list[pb.WorkRequest] = []
    get_work = device._link.get_work
    device._link.get_work = lambda request: asked.append(request) or get_work(request)  # type: ignore[func-returns-value]

    def ask() -> pb.WorkRequest:
        before = len(asked)
        while len(asked) == before:
            device.step()
        return asked[-1]

    assert not ask().HasField("condition")
    for condition in (pb.Condition(unmetered=False), pb.Condition(unmetered=True, busy=False), pb.Condition()):
        plain = ask().ByteSize()
        said.append(condition)
        news = ask()
        assert (news.HasField("condition"), news.condition) == (True, condition)
        assert ask().ByteSize() == plain == news.ByteSize() - 2 - condition.ByteSize()
