"""Simulated clients that come and go: as the sine or the trace says, the same in every run, and after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import PlanError
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.events import Event, RoundClosed
from fedpress.server.federation import Federation
from fedpress.simulations.availability import Diurnal, Trace, availability, parse
from fedpress.simulations.engines import simulate
from fedpress.simulations.records import trained
from fedpress.simulations.results import Result

NAMES = [f"client-{i:03d}" for i in range(4)]
TRACE = """client,from,to
# three take turns, one is always there
client-000, 1, 7
client-001, 1, 2
client-001, 4, 5
client-002, 2, 3
client-003, 3, 7
"""
#: Who is there in rounds 1 to 6, by hand; then it begins anew.
REPLAY = ["01", "02", "03", "013", "03", "03", "01", "02"]


def plan(out: Path, *overrides: str) -> Plan:
    return load(
        None,
        [
            f"run.out={out}",
            "run.rounds=8",
            "clients.count=4",
            "train.trainer=idle",
            "engine.name=inline",
            "server.long_poll_s=1",
            "evaluate.clients_every=0",
            *overrides,
        ],
    )


def traced(out: Path, *overrides: str) -> Plan:
    out.mkdir(exist_ok=True)
    (out / "trace.csv").write_text(TRACE)
    return plan(out, f"clients.availability={out / 'trace.csv'}", *overrides)


def cohorts(result: Result) -> list[str]:
    return ["".join(sorted(name[-1] for name in r.clients)) for r in trained(result.rounds)]


@given(st.integers(0, 9), st.floats(0.05, 1), st.floats(0.5, 1e5), st.floats(0, 1e6))
def test_a_diurnal_client_is_there_for_its_share_of_every_day_in_one_stretch(
    seed: int, share: float, day: float, start: float
) -> None:
    rule = Diurnal(seed, share, day)
    steps = [rule.available("a", start + day * k / 1000) for k in range(1000)]
    assert sum(steps) / 1000 == pytest.approx(share, abs=0.003)
    assert sum(a != b for a, b in zip(steps, [*steps[1:], steps[0]], strict=True)) <= 2
    wait = rule.wait("a", start)
    assert (wait == 0) == rule.available("a", start)
    assert rule.available("a", start + wait + 1e-6 * day)


def test_diurnal_phases_are_the_clients_own_and_the_seeds() -> None:
    there = {seed: [Diurnal(seed, 0.5, 24).available(f"c{i}", 3) for i in range(1000)] for seed in (0, 1)}
    assert 420 < sum(there[0]) < 580
    assert there[0] != there[1]


def test_a_trace_is_replayed_and_begins_anew() -> None:
    rule = Trace(parse(TRACE.splitlines(), NAMES, "here"), 1.0)
    there = ["".join(name[-1] for name in NAMES if rule.available(name, r)) for r in range(1, 9)]
    assert there == REPLAY
    seconds = Trace({"a": [(10.0, 20.0), (30.0, 40.0)]}, 0.0)
    waits = {0.0: 10.0, 10.0: 0.0, 19.5: 0.0, 20.0: 10.0, 39.0: 0.0, 40.0: 10.0, 65.0: 5.0}
    assert {now: seconds.wait("a", now) for now in waits} == waits
    assert seconds.wait("b", 0.0) == float("inf")


def test_rounds_are_of_those_who_are_there(tmp_path: Path) -> None:
    assert cohorts(simulate(traced(tmp_path))) == REPLAY


def test_who_is_not_there_asks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[int, str]] = set()
    get_work = Federation.get_work

    def listen(self: Federation, client: str, request: pb.WorkRequest) -> pb.WorkReply:
        asked.add((self.round, self._enrolment.name(client)[-1]))
        return get_work(self, client, request)

    monkeypatch.setattr(Federation, "get_work", listen)
    simulate(traced(tmp_path))
    assert asked == {(r, c) for r, cohort in enumerate(REPLAY, 1) for c in cohort}


def test_processes_come_and_go_too(tmp_path: Path) -> None:
    result = simulate(traced(tmp_path, "engine.name=processes", "run.rounds=4"))
    assert cohorts(result) == REPLAY[:4]


def test_seconds_in_real_processes(tmp_path: Path) -> None:
    """One is there from the start, the other comes when a round that would take for ever must go on without it."""
    (tmp_path / "trace.csv").write_text("client,from,to\nclient-000,0,1000\nclient-001,900,1000\n")
    settings = ("engine.name=processes", "clients.count=2", "run.rounds=2", "clients.availability_in=seconds")
    result = simulate(plan(tmp_path, f"clients.availability={tmp_path / 'trace.csv'}", *settings))
    assert cohorts(result) == ["0", "0"]


@pytest.mark.parametrize("selection", ["uniform", "weighted", "round-robin", "deadline-aware"])
def test_who_is_invited_repeats_for_a_seed_also_after_a_crash(tmp_path: Path, selection: str) -> None:
    settings = (
        "clients.count=8",
        "clients.availability=diurnal",
        "clients.available=0.7",
        "clients.day=7",
        "cohort.fraction=0.5",
        f"cohort.selection={selection}",
        "cohort.deadline_s=5",
    )
    whole = simulate(plan(tmp_path / "whole", *settings))
    again = simulate(plan(tmp_path / "again", *settings))

    class Cut(Exception):
        pass

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 5:
            raise Cut

    with pytest.raises(Cut):
        simulate(plan(tmp_path / "cut", *settings), cut)
    resumed = simulate(plan(tmp_path / "cut", *settings), resume=True)
    assert cohorts(whole) == cohorts(again) == cohorts(resumed)
    assert len(set(cohorts(whole))) > 2
    assert whole.summary.model == again.summary.model == resumed.summary.model


def broken() -> Iterator[tuple[str, str]]:
    head = "client,from,to\n"
    yield "", "Expected lines client,from,to"
    yield head, "nobody would ever be there"
    yield "client-000,1,2\n", "heading 'client,from,to' in line 1"
    yield head + "client-00,1,2\n", r"No client is called 'client-00' \(line 2 of .*Did you mean 'client-00"
    yield head + "client-000,1,2\nclient-000,5,soon\n", "two numbers in line 3"
    yield head + "client-000,1\n", "two numbers in line 2"
    yield head + "client-000,1,2,3\n", "two numbers in line 2"
    yield head + "client-000,3,3\n", "0 <= from < to in line 2"
    yield head + "client-000,-1,3\n", "0 <= from < to in line 2"
    yield head + "client-000,nan,3\n", "0 <= from < to in line 2"
    yield head + "client-000,1,inf\n", "0 <= from < to in line 2"
    yield head + "client-000,1,3\nclient-000,4,9\n", "in round 3, 0 are there"


@pytest.mark.parametrize(("text", "said"), list(broken()), ids=lambda v: v[:40])
def test_a_bad_trace_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(PlanError, match=said):
        availability(plan(tmp_path, f"clients.availability={path}"), NAMES)


def test_a_word_that_is_no_rule_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Expected 'always', 'diurnal' or the path of a trace, got 'diurnl'"):
        availability(plan(tmp_path, "clients.availability=diurnl"), NAMES)
    (tmp_path / "binary").write_bytes(bytes([255, 254, 0]))
    with pytest.raises(PlanError, match="path of a trace"):
        availability(plan(tmp_path, f"clients.availability={tmp_path / 'binary'}"), NAMES)


def test_always_is_no_rule_at_all(tmp_path: Path) -> None:
    assert availability(plan(tmp_path), NAMES) is None
    few: Any = ("clients.availability=diurnal", "clients.available=0.05", "run.rounds=50")
    with pytest.raises(PlanError, match=r"at least 1 clients \(cohort.min_updates\) in round"):
        availability(plan(tmp_path, *few), NAMES)


def test_virtual_time_by_the_second_repeats_to_the_byte(tmp_path: Path) -> None:
    """Two clients take turns, 100 seconds each; a round, of four calls, takes about 28."""
    lines = ["client,from,to"] + [f"client-00{k % 2},{100 * k},{100 * k + 100}" for k in range(4)]
    (tmp_path / "trace.csv").write_text("\n".join(lines))
    settings = (
        f"clients.availability={tmp_path / 'trace.csv'}",
        "clients.availability_in=seconds",
        "clients.count=2",
        "engine.clock=virtual",
        "fleet.latency_s=7",
        "run.rounds=24",
    )
    runs = [simulate(plan(tmp_path / out, *settings)) for out in ("a", "b")]
    assert runs[0].rounds == runs[1].rounds
    assert set(cohorts(runs[0])) == {"0", "1"}
    for r in trained(runs[0].rounds):
        (client,) = r.clients
        assert int(client[-1]) == int((r.elapsed - r.seconds) // 100) % 2


def test_seconds_inline_need_virtual_time(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"engine\.clock = 'virtual'"):
        plan(tmp_path, "clients.availability=diurnal", "clients.availability_in=seconds")
