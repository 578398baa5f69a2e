"""Both kinds of privacy over real processes: a server that is killed in mid-run changes nothing in the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedpress.privacy.ledger import Entry, Ledger
from fedpress.simulations.results import Result

REPO = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "fedpress.cli"]
ROUNDS, CLIENTS = 5, 3


def entries(run: Path) -> list[Entry]:
    kept = Ledger(run / "ledger.sqlite", 1e-5)
    try:
        kept.verify()
        return list(kept.entries())
    finally:
        kept.close()


def served(words: list[str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*CLI, "server", *words, *more, "--linger", "3"], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("central", ["cohort.selection=poisson", "cohort.fraction=0.7"]),
        ("local", ["train.max_steps=5"]),
    ],
)
def test_a_restart_in_the_middle_changes_nothing_in_the_ledger(
    tmp_path: Path, devices: Any, port_of: Any, mode: str, more: list[str]
) -> None:
    words = [
        "digits", f"run.out={tmp_path}", "run.name=run", f"run.rounds={ROUNDS}", f"clients.count={CLIENTS}",
        "server.long_poll_s=3", *more, "--privacy", mode, "--epsilon", "3",
    ]  # fmt: skip
    split = ["digits", f"clients.count={CLIENTS}"]
    first = served(words)
    port = port_of(first)
    clients = devices(CLIENTS, f"127.0.0.1:{port}", split, tmp_path)
    assert first.stdout is not None
    for line in first.stdout:
        if "round" in line and f"2/{ROUNDS}" in line:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    first.stdout.close()
    before = entries(tmp_path / "run")
    with served(words, f"server.port={port}") as second:
        for client in clients:
            output, _ = client.communicate(timeout=90)
            assert client.returncode == 0, output
        second.communicate(timeout=30)
    after = entries(tmp_path / "run")
    assert after[: len(before)] == before
    parties = ["population"] if mode == "central" else [f"client:c{i}" for i in range(CLIENTS)]
    assert sorted((e.round, e.party) for e in after) == [(r + 1, p) for r in range(ROUNDS) for p in parties]
    assert 2.9 < max(e.epsilon for e in after) <= 3
    assert Result.read(tmp_path / "run").summary.epsilon == pytest.approx(max(e.epsilon for e in after), rel=1e-5)


def test_one_command_simulates_with_privacy_and_another_says_what_it_cost(tmp_path: Path) -> None:
    words = ["digits", f"run.out={tmp_path}", "run.rounds=2", "clients.count=4", "cohort.fraction=0.5"]
    made = subprocess.run(
        [*CLI, "simulate", *words, "--privacy", "central", "--epsilon", "3"],
        capture_output=True, text=True, timeout=120, cwd=REPO,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "3.00 at most" in made.stdout
    asked = subprocess.run(
        [*CLI, "privacy", str(tmp_path / "digits"), "--rounds", "2"], capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    assert "population" in asked.stdout
