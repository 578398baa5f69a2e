"""The live view says what happened, in a terminal and without one, from any thread."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedpress import plan as plans
from fedpress.server import events
from fedpress.simulations.progress import Progress, Silent, line, watching
from fedpress.simulations.records import ClientRecord, RoundRecord, read_rounds
from fedpress.simulations.units import sparkline

MODEL = {"w": np.zeros(1, np.float32)}
ROUNDS = 4


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def closed(record: RoundRecord) -> events.RoundClosed:
    return events.RoundClosed(json.loads(record.to_json()), MODEL)


@pytest.fixture
def rounds(make_run: Callable[..., Path]) -> list[RoundRecord]:
    return read_rounds(make_run("source", count=ROUNDS))


def watch(tmp_path: Path, terminal: bool, clock: Callable[[], float] = Clock()) -> tuple[Progress, io.StringIO]:  # noqa: B008
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=140, color_system=None)
    plan = plans.load(None, [f"run.rounds={ROUNDS}", f'run.out="{tmp_path}"', 'run.name="demo"'])
    return Progress(plan, console, clock), screen


def frame(progress: Progress) -> str:
    console = Console(width=140, color_system=None, force_terminal=True, file=io.StringIO())
    with console.capture() as captured:
        console.print(progress._render())
    return captured.get()


def test_one_plain_line_per_round_without_a_terminal(tmp_path: Path, rounds: list[RoundRecord]) -> None:
    progress, screen = watch(tmp_path, terminal=False)
    with progress as shown:
        shown.run(events.RoundOpened(1, ROUNDS, ("a", "b")))
        for record in rounds:
            shown.run(closed(record))
        shown.run(events.ClientFailed("cli\x1b[2Jent", 2, "gone"))
    lines = screen.getvalue().splitlines()
    assert len(lines) == len(rounds) + 1
    assert lines[0].startswith("round 0/4  accuracy 10.3 %")
    assert lines[4].startswith("round 4/4")
    assert "clients 10/10  up 37." in lines[4]
    assert "kB (5" in lines[4]
    assert lines[5] == "cli?[2Jent: gone"
    assert screen.getvalue().isascii()


def test_the_view_shows_the_run(tmp_path: Path, rounds: list[RoundRecord]) -> None:
    clock = Clock()
    progress, _ = watch(tmp_path, terminal=True, clock=clock)
    assert "0/4" in frame(progress)
    for record in rounds[:3]:
        progress.run(closed(record))
    names = tuple(f"c{i}" for i in range(6))
    progress.run(events.RoundOpened(3, ROUNDS, names))
    progress.run(events.WorkTaken("c0", 3))
    progress.run(events.UpdateCounted("c1", 3, 3800, 203_560))
    progress.run(events.ClientFailed("c2", 3, "update refused"))
    text = frame(progress)
    assert "3/4" in text
    assert f"{100 * rounds[2].metrics['accuracy']:.1f} %" in text
    assert "3 invited, 1 working (c0), 1 pushed, 1 failed (c2)" in text
    assert "and 3.80 kB in this round" in text
    assert "c2: update refused" in text
    assert "4.07 MB  5" in text  # 20 updates of 50 890 parameters, about 54x
    mean = (rounds[1].seconds + rounds[2].seconds) / 2
    assert f"{2 * mean:.2f} s left" in text
    clock.now += mean / 2
    assert f"{1.5 * mean:.2f} s left" in frame(progress)
    clock.now += 100  # a round that lasts: never less than the rounds after it
    assert f"{mean:.2f} s left" in frame(progress)


def test_a_resumed_run_knows_what_was_done(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    make_run("demo", count=3)
    progress, _ = watch(tmp_path, terminal=True)
    progress.run(events.RoundOpened(3, ROUNDS, ("a",)))
    assert "of 4.07 MB" in frame(progress)  # rounds 1 and 2; the third is being done again


def test_the_uncompressed_run_is_shown_beside(tmp_path: Path, rounds: list[RoundRecord]) -> None:
    progress, screen = watch(tmp_path, terminal=False)
    for record in rounds:
        progress.baseline(closed(record))
    assert screen.getvalue() == ""
    progress.baseline(events.RunFinished("done"))
    assert screen.getvalue().startswith("uncompressed, for comparison: ")
    assert "uncompressed" in frame(progress)


def test_told_from_many_threads(tmp_path: Path) -> None:
    progress, _ = watch(tmp_path, terminal=True)
    with progress, ThreadPoolExecutor(8) as pool:
        progress.run(events.RoundOpened(1, ROUNDS, ()))
        list(pool.map(lambda i: progress.run(events.UpdateCounted(f"c{i}", 1, 10, 0)), range(800)))
        assert "800 pushed" in frame(progress)
    assert "and 8.00 kB in this round" in frame(progress)


def test_the_terminal_is_given_back_on_interrupt(tmp_path: Path) -> None:
    progress, screen = watch(tmp_path, terminal=True)
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert screen.getvalue().rindex(shown) > screen.getvalue().rindex(hidden)


def test_silent_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(plans.load(), quiet=True) as shown:
        assert isinstance(shown, Silent)
        shown.run(events.Noted("x"))
        shown.say("x")
    assert capsys.readouterr().out == ""


def test_line_of_a_final_evaluation() -> None:
    record = RoundRecord(5, seconds=1, cohort=2, updates=2, client_metrics={"accuracy": 0.9}, evaluation=True)
    assert line(record, 4) == "final evaluation  accuracy 90.0 % on clients  clients 2/2  1.00 s"


def test_work_goes_on_over_the_end_of_a_round_where_updates_may_be_late(tmp_path: Path) -> None:
    clients = {"c0": ClientRecord(staleness=(2, 0)), "c1": ClientRecord(staleness=(1,))}
    record = RoundRecord(1, seconds=1, cohort=3, updates=3, clients=clients)
    for override, stay in (("cohort.buffer=3", True), ("cohort.late=fold", True), ("cohort.late=drop", False)):
        progress = Progress(plans.load(None, [f'run.out="{tmp_path}"', override]), Console(file=io.StringIO()))
        progress.run(events.RoundOpened(1, ROUNDS, ("c0", "c1", "c2")))
        progress.run(events.WorkTaken("c2", 1))
        progress.run(events.UpdateCounted("c0", 1, 10, 0, staleness=2))
        progress.run(closed(record))
        progress.run(events.RoundOpened(2, ROUNDS, ("c0",)))
        assert ("1 working (c2)" in frame(progress)) == stay
        assert "staleness 1.0, at most 2" in frame(progress)
    assert "clients 3/3  staleness 1.0, at most 2  1.00 s" in line(record, 4)


def test_a_warning_and_a_loss_that_is_no_number_are_shown(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Progress(plans.load(None, [f"run.out={tmp_path}"]), console) as shown:
        shown.run(events.Warned("loss", 2, "Expected a finite loss."))
    assert "warning: Expected a finite loss." in console.file.getvalue()  # type: ignore[attr-defined]
    assert "loss not finite" in line(RoundRecord(2, metrics={"accuracy": 0.1}, not_finite=("metrics.loss",)), 3)


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 40) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1], 40) == "▁▁"
    assert sparkline([], 40) == ""
    assert len(sparkline(list(range(1000)), 40)) == 40
    assert sparkline([0, 7], 40, ascii_only=True) == ".#"
