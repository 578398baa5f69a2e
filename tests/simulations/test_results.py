"""What a run leaves behind can be read again, crashes included, and adds up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fedpress import plan as plans
from fedpress.errors import DataError
from fedpress.simulations import units
from fedpress.simulations.records import ClientRecord, RoundRecord, curve, latest, read_rounds
from fedpress.simulations.results import Result, Summary, summarise, table

MakeRun = Callable[..., Path]


def three_rounds() -> list[RoundRecord]:
    """An evaluation, two rounds of two clients with a model of 1000 parameters, a final evaluation; sums by hand."""
    a = ClientRecord(examples=30, bytes_up=100, bytes_down=1000, metrics={"accuracy": 0.5}, epsilon=1.5)
    b = ClientRecord(examples=10, bytes_up=60, bytes_down=1000, metrics={"accuracy": 0.9}, epsilon=0.5)
    return [
        RoundRecord(0, seconds=1, elapsed=1, metrics={"accuracy": 0.1}),
        RoundRecord(1, 2, 3, cohort=2, updates=2, metrics={"accuracy": 0.8}, bytes_up=160, bytes_up_uncompressed=8000,
                    bytes_down=2000, bytes_down_uncompressed=8000, clients={"a": a, "b": b}),
        RoundRecord(2, 2, 5, cohort=1, updates=1, metrics={"accuracy": 0.7}, bytes_up=40, bytes_up_uncompressed=4000,
                    bytes_down=500, bytes_down_uncompressed=4000,
                    clients={"a": ClientRecord(examples=30, bytes_up=40, bytes_down=500, epsilon=2.5)}),
        RoundRecord(3, 1, 6, cohort=1, bytes_down=500, bytes_down_uncompressed=4000, evaluation=True,
                    clients={"b": ClientRecord(bytes_down=500, metrics={"accuracy": 1.0})}),
    ]  # fmt: skip


def test_summary_adds_up() -> None:
    s = summarise(plans.load(), three_rounds(), parameters=1000, model="ab", clients=2, engine="inline")
    assert (s.rounds, s.seconds) == (2, 6)
    assert (s.bytes_up, s.bytes_up_uncompressed) == (200, 12_000)
    assert (s.bytes_down, s.bytes_down_uncompressed) == (3000, 16_000)
    assert (s.accuracy, s.best_accuracy, s.best_round) == (0.7, 0.8, 1)
    assert s.personal_accuracy == pytest.approx((0.5 + 1.0) / 2)
    assert s.personal_deviation == pytest.approx(0.25)
    assert s.personal_worst_decile == 0.5
    assert s.epsilon == 2.5
    assert s.bits_up == pytest.approx(200 * 8 / (1000 * 3))
    assert s.bits_down == pytest.approx(3000 * 8 / (1000 * 4))
    assert s.baseline_accuracy is None


def test_summary_of_nothing() -> None:
    s = summarise(plans.load(), [], parameters=1000, model="", clients=0, engine="inline")
    assert (s.accuracy, s.best_round, s.epsilon, s.rounds, s.bits_up) == (None, None, None, 0, 0.0)


def test_summary_file(tmp_path: Path) -> None:
    s = summarise(plans.load(), three_rounds(), parameters=1000, model="ab", clients=2, engine="inline")
    raw = json.loads(s.write(tmp_path).read_text())
    assert raw["accuracy"] == 0.7
    assert "baseline_accuracy" not in raw
    assert Summary.read(tmp_path) == s
    (tmp_path / "summary.json").write_text('{"name": 3}')
    with pytest.raises(DataError, match=r"summary\.json'.*\(name\)"):
        Summary.read(tmp_path)
    with pytest.raises(DataError, match="Expected a finished run"):
        Summary.read(tmp_path / "nowhere")


def test_line_round_trip_ignores_the_unknown() -> None:
    for record in three_rounds():
        line = record.to_json()
        assert "\n" not in line
        assert RoundRecord.from_json(line) == record
        assert RoundRecord.from_table({**json.loads(line), "of_a_later_version": [1]}) == record


def test_what_is_not_finite_is_absent() -> None:
    record = RoundRecord(1, train_loss=math.nan, metrics={"loss": math.inf, "accuracy": 0.5})
    strict = json.loads(record.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["train_loss"] is None
    for line in (record.to_json(), '{"round": 1, "train_loss": NaN, "metrics": {"loss": Infinity, "accuracy": 0.5}}'):
        read = RoundRecord.from_json(line)
        assert read.train_loss is None
        assert read.metrics == {"accuracy": 0.5}


def test_torn_last_line_is_ignored(make_run: MakeRun) -> None:
    run = make_run("run", count=3)
    log = run / "rounds.jsonl"
    whole = log.read_bytes()
    assert [r.round for r in read_rounds(run)] == [0, 1, 2, 3]
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last + 1, len(whole) - 1, 97):
        log.write_bytes(whole[:cut])
        assert [r.round for r in read_rounds(run)] == [0, 1, 2]
    log.write_bytes(whole[:-1])  # all but the newline: the record is whole
    assert [r.round for r in read_rounds(run)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "broken", [b'{"round": 1', b"[]", b'{"round": "one"}', b"{}", b"\xff\xfe", b'{"round": 1, "clients": 3}']
)
def test_other_broken_lines_are_refused(make_run: MakeRun, broken: bytes) -> None:
    run = make_run("run", count=2)
    log = run / "rounds.jsonl"
    log.write_bytes(broken + b"\n" + log.read_bytes())
    with pytest.raises(DataError, match=r"line 1 of .*rounds\.jsonl"):
        read_rounds(run)
    log.write_bytes(broken + b"\n")  # a whole line, though the last
    with pytest.raises(DataError, match="line 1"):
        read_rounds(run)


def test_round_recorded_twice_counts_once(make_run: MakeRun) -> None:
    run = make_run("run", count=2)
    with (run / "rounds.jsonl").open("a") as log:
        log.write(RoundRecord(1, updates=77).to_json() + "\n")
    assert [(r.round, r.updates) for r in read_rounds(run)] == [(0, 0), (1, 77), (2, 10)]


def test_clients_measure_the_model_that_arrived() -> None:
    rounds = [RoundRecord(1, client_metrics={"accuracy": 0.1}), RoundRecord(2, client_metrics={"accuracy": 0.6})]
    assert curve(rounds) == [(0, 0.1), (1, 0.6)]
    assert curve([*rounds, RoundRecord(3, metrics={"accuracy": 0.9})]) == [(3, 0.9)]


def test_latest_prefers_records_with_metrics() -> None:
    found = latest(three_rounds())
    assert list(found) == ["a", "b"]
    assert found["a"].metrics == {"accuracy": 0.5}
    assert found["b"].metrics == {"accuracy": 1.0}


def test_closing_table(make_run: MakeRun) -> None:
    run = make_run("run[bold]", count=3, baseline_accuracy=0.5)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(Result.read(run)))
    text = captured.get()
    assert "(uncompressed 50.0 %, -" in text
    assert " of 6.11 MB, 5" in text
    assert "run[bold]/report.html" in text  # a path is no markup


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_996, "10.0 kB"), (61_234_000, "61.2 MB"), (999_600, "1.00 MB")],
)
def test_bytes_are_decimal(value: int, text: str) -> None:
    assert units.size(value) == text


def test_other_units() -> None:
    assert [units.duration(s) for s in (0.0081, 0.812, 42.4, 59.6, 187, 3723)] == [
        "8.1 ms",
        "0.81 s",
        "42 s",
        "1:00",
        "3:07",
        "1:02:03",
    ]
    assert [units.ratio(61, n) for n in (0, 61, 1.2)] == ["-", "1.0x", "50.8x"]
    assert [units.points(d) for d in (0.004, -0.004, 0.0001, -0.0001)] == ["+0.4 points", "-0.4 points"] + [
        "0.0 points"
    ] * 2
    assert units.printable("a\x1b[2J\u202eb\n") == "a?[2J?b?"
