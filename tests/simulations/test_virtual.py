"""Virtual time: it adds up, it repeats exactly, deadlines close rounds at their second, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedpress.errors import FedpressError
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.store import Store
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import Result, table

INLINE = ("engine.name=inline", "train.trainer=idle", "clients.holdout=0")
VIRTUAL = (*INLINE, "engine.clock=virtual")
#: Of the task digits: its network, and the same uncompressed.
PARAMETERS, BYTES = 50_826, 203_304
RAW = ("upload.codec=raw", "download.codec=raw", "download.mode=full")


def run(out: Path, *words: str) -> Result:
    return simulate(load(None, [f"run.out={out}", *words]))


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.run_dir / "rounds.jsonl").read_text().splitlines()]


def fleet(path: Path, column: str, *values: float) -> str:
    """A profile file with one column; the plan's key that names it."""
    rows = [f"client-{i:03d},{value}" for i, value in enumerate(values)]
    path.write_text("\n".join([f"client,{column}", *rows]))
    return f"fleet.profiles={path}"


def test_times_add_up(tmp_path: Path) -> None:
    """Two clients, whole models of 203 304 bytes each way, one step per round. By hand, for the slower one:

    enrol 0.25 + ask 0.25 + fetch 0.25 + 203304 / 16384 + step 4 + encode 50826 / 65536 + push 0.25 + 203304 / 8192
    """
    links = ("fleet.latency_s=0.25", "fleet.up_rate=8192", "fleet.down_rate=16384", "fleet.encode_rate=65536")
    speeds = fleet(tmp_path / "fleet.csv", "step_s", 1, 4)
    result = run(tmp_path, *VIRTUAL, *RAW, *links, speeds, "clients.count=2", "run.rounds=2")
    start, first, second, last = records(result)
    fetch, encode, push = 12.40869140625, 0.775543212890625, 24.8173828125
    assert first["clients"]["client-000"]["bytes_up"] == first["clients"]["client-001"]["bytes_down"] == 203_304
    assert start["elapsed"] == 0
    assert first["seconds"] == pytest.approx(4 * 0.25 + fetch + 4 + encode + push, rel=1e-12)
    assert second["seconds"] == pytest.approx(3 * 0.25 + fetch + 4 + encode + push, rel=1e-12)
    assert last["seconds"] == pytest.approx(3 * 0.25 + fetch, rel=1e-12)  # an evaluation's upload is empty
    assert last["elapsed"] == pytest.approx(first["seconds"] + second["seconds"] + last["seconds"], rel=1e-12)
    told = [[first["clients"][name][f"{what}_seconds"] for what in ("train", "encode")] for name in first["clients"]]
    assert told == [[1, encode], [4, encode]]
    assert result.summary.seconds == last["elapsed"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_round_is_as_long_as_its_slowest_client_or_its_deadline(tmp_path: Path, data: st.DataObject) -> None:
    ranges = {
        "latency_s": (0.0, 2.0),
        "step_s": (0.1, 90.0),
        **dict.fromkeys(("encode_rate", "up_rate", "down_rate"), (1e3, 1e9)),
    }
    drawn = [{key: data.draw(st.floats(*span), key) for key, span in ranges.items()} for _ in range(3)]
    took = {
        f"client-{i:03d}": 4 * c["latency_s"]  # enrol, ask, fetch, push
        + c["step_s"]
        + PARAMETERS / c["encode_rate"]
        + BYTES / c["down_rate"]
        + BYTES / c["up_rate"]
        for i, c in enumerate(drawn)
    }
    deadline = data.draw(st.floats(min(took.values()) * 1.001, 2 * max(took.values())), "deadline")
    assume(all(abs(seconds - deadline) > 1e-6 for seconds in took.values()))
    lines = [",".join([name, *map(repr, c.values())]) for name, c in zip(took, drawn, strict=True)]
    (tmp_path / "fleet.csv").write_text("\n".join([",".join(["client", *ranges]), *lines]))
    words = (
        "clients.count=3",
        "run.rounds=1",
        f"fleet.profiles={tmp_path / 'fleet.csv'}",
        f"cohort.deadline_s={deadline!r}",
    )
    plan = load(None, [f"run.out={tmp_path}", *VIRTUAL, *RAW, *words, "evaluate.clients_every=0"])
    _, record = records(simulate(plan, fresh=True))
    in_time = {name for name, seconds in took.items() if seconds < deadline}
    assert {name for name, client in record["clients"].items() if client["fate"] == "counted"} == in_time
    assert record["seconds"] == pytest.approx(min(deadline, max(took.values())), rel=1e-9)


def test_a_deadline_closes_the_round_at_its_second_with_the_fast_clients(tmp_path: Path) -> None:
    speeds = fleet(tmp_path / "fleet.csv", "step_s", 1, 40, 1, 40, 1, 1)
    words = ("clients.count=6", "run.rounds=3", "cohort.deadline_s=8", "evaluate.clients_every=0", speeds)
    for record in records(run(tmp_path, *VIRTUAL, *words))[1:]:
        fates = {name: client["fate"] for name, client in record["clients"].items()}
        assert record["seconds"] == 8
        assert [name for name in fates if fates[name] == "stale"] == ["client-001", "client-003"]
        assert record["updates"] == 4


def test_an_update_that_arrives_at_the_deadline_is_in_time(tmp_path: Path) -> None:
    links = ("fleet.latency_s=0", "fleet.up_rate=1e300", "fleet.down_rate=1e300", "fleet.encode_rate=1e300")
    words = ("clients.count=2", "run.rounds=1", "cohort.deadline_s=8", "evaluate.clients_every=0", *links)
    speeds = fleet(tmp_path / "fleet.csv", "step_s", 1, 8)
    (_, record) = records(run(tmp_path, *VIRTUAL, *words, speeds))
    assert (record["seconds"], record["updates"]) == (8, 2)


def test_an_upload_that_its_round_overtakes_was_sent_with_its_envelopes(tmp_path: Path) -> None:
    words = ("clients.count=2", "run.rounds=3", "cohort.deadline_s=8", "evaluate.clients_every=0", *RAW)
    result = run(tmp_path, *VIRTUAL, *words, fleet(tmp_path / "fleet.csv", "up_rate", 1e6, 2e4))
    counted, sent = (sum(getattr(r, way) for r in result.rounds) for way in ("bytes_up_uncompressed", "bytes_up"))
    assert counted < sent < result.summary.wire_up


def test_who_waits_for_long_is_still_there(tmp_path: Path) -> None:
    """A step of an hour is longer than a silent client counts as present; held requests are not silence."""
    speeds = fleet(tmp_path / "fleet.csv", "step_s", 1, 3600)
    words = ("clients.count=2", "run.rounds=2", "cohort.deadline_s=10000", speeds)
    _, first, second, _ = records(run(tmp_path, *VIRTUAL, *words))
    assert (first["updates"], second["cohort"]) == (2, 2)


@pytest.mark.parametrize("codec", ["auto", "ef+predict:0.5+ecsq:3"])
def test_the_same_seed_gives_the_same_bytes_twice(tmp_path: Path, codec: str) -> None:
    words = (
        "engine.name=inline", "engine.clock=virtual", f"upload.codec={codec}", "run.seed=5", "run.rounds=8",
        "clients.count=12", "cohort.fraction=0.5", "cohort.over_select=1.3", "cohort.deadline_s=20",
        "fleet.step_s=0.5", "fleet.step_spread=0.8", "fleet.slow_share=0.3", "fleet.up_rate=2e3", "fleet.link_spread=1",
        "fleet.dropout=0.2", "fleet.away_s=30", "train.max_steps=3",
    )  # fmt: skip
    one, two = run(tmp_path / "a", *words), run(tmp_path / "b", *words)
    assert (one.run_dir / "rounds.jsonl").read_bytes() == (two.run_dir / "rounds.jsonl").read_bytes()
    assert one.summary.model == two.summary.model
    assert sum(r.late for r in one.rounds) > 0
    assert len({r.seconds for r in one.rounds}) > 5


def test_the_server_measures_the_virtual_link(tmp_path: Path) -> None:
    """What codec auto is chosen by: bytes per second, without latency exactly those of the link."""
    rates = fleet(tmp_path / "fleet.csv", "up_rate", 3000, 70000)
    words = ("clients.count=2", "run.rounds=3", "fleet.latency_s=0", "fleet.down_rate=5e5", rates)
    store = Store(run(tmp_path, *VIRTUAL, *RAW, *words).run_dir / "store.sqlite")
    names = {client.id: client.name for client in store.clients.all()}
    links = {names[i]: pb.Capabilities.FromString(said).link for i, said in store.clients.capabilities().items()}
    store.close()
    measured = [(links[name].up, links[name].down) for name in sorted(links)]
    assert measured == [pytest.approx((3000, 5e5)), pytest.approx((70000, 5e5))]


def test_a_run_that_nobody_can_move_is_said_to_stand_still(tmp_path: Path) -> None:
    with pytest.raises(FedpressError, match="Nothing moves any more: round 1 is gathering"):
        run(tmp_path, *VIRTUAL, "clients.count=2", "cohort.min_clients=3")


def test_who_drops_out_misses_the_round_and_comes_back(tmp_path: Path) -> None:
    words = ("clients.count=6", "run.rounds=12", "cohort.deadline_s=5", "fleet.dropout=0.4", "fleet.away_s=10")
    rounds = [r for r in records(run(tmp_path, *VIRTUAL, *words)) if r["clients"]]
    fates: dict[str, list[str]] = {}
    for record in rounds[:-1]:
        assert record["seconds"] <= 5 + 1e-9
        for name, client in record["clients"].items():
            fates.setdefault(name, []).append(client["fate"])
    lost = [seen.index("stale") for seen in fates.values() if "stale" in seen]
    assert lost
    back = [seen[seen.index("stale") :] for seen in fates.values() if "stale" in seen]
    assert any("counted" in later for later in back)


def test_where_all_clients_are_alike_the_run_is_that_of_the_wall_clock(tmp_path: Path) -> None:
    """Calls take a second and all else no time: all is a tie, ties go by name, and so do turns on the wall clock."""
    words = ("engine.name=inline", "clients.count=4", "cohort.fraction=0.5", "run.rounds=4", "train.epochs=2")
    rates = tuple(f"fleet.{rate}_rate=1e300" for rate in ("up", "down", "encode"))
    alike = ("engine.clock=virtual", "fleet.latency_s=1", "fleet.step_s=1e-300", *rates)
    wall, virtual = run(tmp_path / "wall", *words), run(tmp_path / "virtual", *words, *alike)

    def timeless(result: Result) -> list[Any]:
        found = records(result)
        for line in (*found, *(client for record in found for client in record["clients"].values())):
            for key in ("seconds", "elapsed", "train_seconds", "encode_seconds"):
                line.pop(key, None)
        return found

    assert timeless(wall) == timeless(virtual)
    assert wall.summary.model == virtual.summary.model
    for way in ("wire_up", "wire_down"):  # messages say how many seconds: a few bytes more or less
        assert getattr(virtual.summary, way) == pytest.approx(getattr(wall.summary, way), rel=0.01)


def test_a_run_that_was_cut_goes_on_from_its_time(tmp_path: Path) -> None:
    words = (*VIRTUAL, "clients.count=3", "cohort.min_clients=3")
    first = run(tmp_path, *words, "run.rounds=2", "evaluate.clients_every=0")
    again = simulate(
        load(None, [f"run.out={tmp_path}", *words, "run.rounds=4", "evaluate.clients_every=0"]), resume=True
    )
    assert [r.round for r in again.rounds] == [0, 1, 2, 3, 4]
    elapsed = [r.elapsed for r in again.rounds]
    assert elapsed[:3] == [r.elapsed for r in first.rounds]
    assert elapsed == sorted(elapsed)
    assert all(r.updates == 3 for r in again.rounds[1:])


def test_people_are_told_which_time_it_is(tmp_path: Path) -> None:
    from rich.console import Console

    from fedpress.simulations.progress import watching

    plan = load(None, [f"run.out={tmp_path}", *VIRTUAL, "clients.count=2", "run.rounds=2"])
    console = Console(width=120, record=True, force_terminal=False)
    with watching(plan, False, console) as watch:
        result = simulate(plan, watch.run)
    console.print(table(result))
    lines = console.export_text().splitlines()
    assert all(line.endswith(" of virtual time") for line in lines if line.startswith("round"))
    (time,) = [line for line in lines if " time " in line and "simulated in" in line]
    assert "of virtual time, simulated in" in time
    assert result.summary.virtual
    assert "wall_seconds" in json.loads((result.run_dir / "summary.json").read_text())
