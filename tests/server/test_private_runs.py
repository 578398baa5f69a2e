"""Central privacy in whole runs: noise as claimed, bounds that hold, a ledger that refuses and survives."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.commands.words import guarded
from fedpress.errors import FedpressError, StoreError
from fedpress.params import Tensors, flatten
from fedpress.plan import Plan, load
from fedpress.privacy.accountants import Charge
from fedpress.privacy.correlated import Banded
from fedpress.privacy.ledger import LEDGER_FILE, POPULATION, Entry, Ledger, Spend
from fedpress.server import events
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import Result

CLIENTS = 12


def plan(out: Path, *more: str) -> Plan:
    return load(
        None,
        [f"run.out={out}", "run.name=private", "engine.name=inline", f"clients.count={CLIENTS}", "run.rounds=4",
         "privacy.mode=central", "strategy.weighting=uniform", "evaluate.clients_every=0", "evaluate.server_every=0",
         "train.trainer=idle", "cohort.fraction=0.5", "cohort.selection=poisson", "strategy.lr=1", *more],
    )  # fmt: skip


def run(out: Path, *more: str, resume: bool = False, listen: Any = lambda _: None) -> Result:
    return simulate(plan(out, *more), listen, resume=resume)


def ledger(out: Path) -> list[Entry]:
    kept = Ledger(out / "private" / LEDGER_FILE, 1e-5)
    try:
        kept.verify()
        return list(kept.entries())
    finally:
        kept.close()


def models(out: Path, *more: str) -> list[Tensors]:
    heard: list[Tensors] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.RoundClosed):
            heard.append(event.model)

    run(out, *more, listen=listen)
    return heard


def moves(found: list[Tensors]) -> list[np.ndarray[Any, Any]]:
    return [flatten(b) - flatten(a) for a, b in itertools.pairwise(found)]


def test_a_round_moves_the_model_by_the_noise_that_is_claimed(tmp_path: Path) -> None:
    """The idle trainer's updates are tiny beside it."""
    found = moves(models(tmp_path, "privacy.noise_multiplier=2", "privacy.clip_norm=3"))
    for moved in found:
        assert np.std(moved) == pytest.approx(2 * 3 / (0.5 * CLIENTS), rel=0.05)
        assert abs(np.mean(moved)) < 5 * np.std(moved) / np.sqrt(moved.size)


def test_without_much_noise_a_round_moves_the_model_by_at_most_the_bounds_of_all(tmp_path: Path) -> None:
    more = (
        "privacy.noise_multiplier=1e-5",
        "privacy.clip_norm=0.001",
        "cohort.selection=round-robin",
        "cohort.fraction=1",
    )
    for moved in moves(models(tmp_path, *more)):
        noise = 1e-5 * 0.001 / CLIENTS * np.sqrt(moved.size)
        assert 0.0001 < np.linalg.norm(moved) < 0.001 + 3 * noise


def test_every_round_is_paid_for_once_and_epsilon_grows(tmp_path: Path) -> None:
    result = run(tmp_path, "privacy.epsilon=4")
    entries = ledger(tmp_path)
    assert [(e.round, e.party) for e in entries] == [(r, "population") for r in (1, 2, 3, 4)]
    assert all(a.epsilon < b.epsilon for a, b in itertools.pairwise(entries))
    assert 3.9 < entries[-1].epsilon <= 4
    assert result.summary.epsilon == entries[-1].epsilon


def test_a_round_that_would_overspend_does_not_begin_also_after_a_restart(tmp_path: Path) -> None:
    first = run(tmp_path, "privacy.noise_multiplier=2", "privacy.max_epsilon=2")
    paid = ledger(tmp_path)
    assert 0 < first.summary.rounds < 4
    assert len(paid) == first.summary.rounds
    assert paid[-1].epsilon <= 2
    assert "is left" in (first.summary.stopped or "")
    again = run(tmp_path, "privacy.noise_multiplier=2", "privacy.max_epsilon=2", resume=True)
    assert ledger(tmp_path) == paid
    assert again.summary.model == first.summary.model


def test_a_round_that_was_given_up_is_of_nobody_when_the_run_goes_on(tmp_path: Path) -> None:
    """Another run spends the budget in mid-round; with more of it, another cohort is drawn, and one sum is of one."""

    def spend(event: events.Event) -> None:
        if isinstance(event, events.UpdateCounted) and event.round == 2:
            other = Ledger(tmp_path / "private" / LEDGER_FILE, 1e-5, durable=False)
            other.charge("other", 1, [Spend(POPULATION, Charge(1.0, "poisson", 0.5, 3))])
            other.close()

    keys = ("privacy.noise_multiplier=5", "privacy.max_epsilon=4")
    first = run(tmp_path, *keys, listen=spend)
    assert first.summary.rounds == 1
    run(tmp_path, *keys, "privacy.max_epsilon=40", resume=True)
    with closing(sqlite3.connect(tmp_path / "private" / "store.sqlite")) as store:
        rows = store.execute("SELECT client FROM leases WHERE ended = 2 AND fate = 'counted'").fetchall()
    assert len(rows) == len(set(rows)) == run(tmp_path, *keys, "privacy.max_epsilon=40", resume=True).rounds[2].updates
    assert [e.round for e in ledger(tmp_path) if e.run != "other"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("cohort.fraction", ["cohort.fraction=0.4"]),
        ("cohort.selection", ["cohort.selection=round-robin"]),
        ("privacy.clip_norm", ["privacy.clip_norm=2"]),
        ("privacy.mode", ["privacy.mode=none", "cohort.selection=uniform"]),
    ],
)
def test_a_run_does_not_go_on_with_a_plan_that_makes_its_ledger_untrue(
    tmp_path: Path, key: str, more: list[str]
) -> None:
    run(tmp_path, "run.rounds=1")
    with pytest.raises(StoreError, match=f"The run began with {key} = "):
        run(tmp_path, "run.rounds=2", *more, resume=True)
    assert run(tmp_path, "run.rounds=2", resume=True).summary.rounds == 2


def test_a_poisson_cohort_of_less_than_one_client_is_a_round(tmp_path: Path) -> None:
    assert run(tmp_path, "cohort.fraction=0.05").summary.rounds == 4


def test_no_picture_is_made_of_what_single_clients_sent(tmp_path: Path) -> None:
    run(tmp_path, "cohort.selection=round-robin")
    assert not list((tmp_path / "private").rglob("distortion.json"))


def test_runs_on_one_ledger_share_a_budget(tmp_path: Path) -> None:
    shared = f"privacy.ledger={tmp_path / 'private' / LEDGER_FILE}"
    run(tmp_path, "privacy.epsilon=3", shared)
    paid = ledger(tmp_path)
    second = simulate(plan(tmp_path, "run.name=second", "privacy.epsilon=3", shared))
    assert second.summary.rounds == 0
    assert ledger(tmp_path) == paid


def test_without_sampling_each_client_pays_for_its_own_rounds_and_rests_when_spent(tmp_path: Path) -> None:
    more = ("cohort.selection=round-robin", "cohort.fraction=0.25", "run.rounds=12", "privacy.noise_multiplier=4")
    run(tmp_path, *more, "privacy.max_epsilon=1.5")
    entries = ledger(tmp_path)
    assert len({e.party for e in entries}) == CLIENTS
    assert max(e.epsilon for e in entries) <= 1.5
    rounds = {e.round for e in entries}
    assert max(rounds) < 12  # it ended when too few were left
    assert all(sum(e.round == r for e in entries) == 3 for r in rounds - {max(rounds)})


def test_with_correlated_noise_nobody_comes_back_too_early(tmp_path: Path) -> None:
    more = ("cohort.selection=uniform", "cohort.fraction=0.25", "privacy.mechanism=banded", "privacy.bands=3")
    run(tmp_path, *more, "run.rounds=9", "privacy.epsilon=5")
    entries = ledger(tmp_path)
    for party in {e.party for e in entries}:
        rounds = sorted(e.round for e in entries if e.party == party)
        assert all(b - a >= 3 for a, b in itertools.pairwise(rounds))
    assert max(e.epsilon for e in entries) <= 5


def test_nothing_is_written_down_of_single_clients(tmp_path: Path) -> None:
    result = run(
        tmp_path, "evaluate.clients_every=1", "privacy.metrics_noise=2", "train.trainer=torch", "train.max_steps=1"
    )
    text = (result.run_dir / "rounds.jsonl").read_text()
    assert "client-" not in text
    for record in result.rounds[1:]:
        assert not record.clients
        assert record.train_loss is None
        assert set(record.client_metrics) == {"accuracy", "loss"}  # noised, and charged
    alone = ledger(tmp_path)[0].charge
    assert alone is not None
    assert alone.noise_multiplier < 1.0


def test_a_minimum_of_clients_hides_the_few_without_any_noise(tmp_path: Path) -> None:
    keys = [f"run.out={tmp_path}", "engine.name=inline", "clients.count=4", "run.rounds=2", "train.max_steps=1"]
    shown = simulate(load(None, [*keys, "run.name=shown", "privacy.min_cohort=4"]))
    assert all(not r.clients and r.client_metrics for r in shown.rounds if r.updates)
    hidden = simulate(load(None, [*keys, "run.name=hidden", "privacy.min_cohort=3", "clients.holdout=0"]))
    assert all(not r.clients and not r.client_metrics for r in hidden.rounds)
    assert all(r.client_accuracy is None for r in shown.rounds)  # its worst tenth is one client


def _work(out: Path, resume: bool) -> None:
    run(out, "run.rounds=20", "privacy.epsilon=4", resume=resume)


def test_killed_at_any_point_the_ledger_ends_as_it_would_have(tmp_path: Path) -> None:
    begun, rng, kills = time.monotonic(), random.Random(0), 0
    process = multiprocessing.get_context("fork").Process
    while True:
        worker = process(target=_work, args=(tmp_path, (tmp_path / "private" / "store.sqlite").exists()))
        worker.start()
        worker.join(None if kills >= 6 or time.monotonic() - begun > 40 else 0.1 + 0.7 * rng.random())
        if worker.is_alive():
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
            kills += 1
            continue
        assert worker.exitcode == 0
        break
    run(tmp_path / "whole", "run.rounds=20", "privacy.epsilon=4")
    kept, whole = (
        [(e.round, e.party, e.parameters, e.epsilon) for e in ledger(at)] for at in (tmp_path, tmp_path / "whole")
    )
    assert kept == whole
    assert kills > 0


def test_a_resumed_correlated_run_goes_on_with_its_noise(tmp_path: Path) -> None:
    """The noise of later rounds takes back that of earlier ones. Had a resumed run forgotten it, the sum of all rounds
    would be noisier than the factorisation says."""
    rounds = 12
    keys = (
        "cohort.selection=uniform", "cohort.fraction=0.08", "privacy.noise_multiplier=1", f"run.rounds={rounds}",
        "privacy.mechanism=banded", f"privacy.bands={rounds}",
    )  # fmt: skip

    class Cut(Exception):
        pass

    def cut(event: events.Event) -> None:
        if isinstance(event, events.RoundClosed):
            heard.append(event.model)
            if event.record["round"] in (3, 6, 9) and event.record["round"] not in cuts:
                cuts.append(event.record["round"])
                raise Cut

    heard: list[Tensors] = []
    cuts: list[int] = []
    while len(cuts) < 3:
        with pytest.raises(Cut):
            run(tmp_path, *keys, resume=bool(cuts), listen=cut)
    run(tmp_path, *keys, resume=True, listen=cut)
    banded = Banded(rounds)
    column = np.array(banded.coefficients()) / banded.coefficients()[0]
    factor = np.array([[column[i - j] if i >= j else 0.0 for j in range(rounds)] for i in range(rounds)])
    seen = np.linalg.norm(np.ones(rounds) @ np.linalg.inv(factor))
    assert seen < 0.5 * np.sqrt(rounds)
    assert np.std(flatten(heard[-1]) - flatten(heard[0])) == pytest.approx(banded.norm() * seen, rel=0.05)


@pytest.mark.parametrize("mode", ["central", "local"])
def test_the_command_line_names_what_it_stands_for(mode: str) -> None:
    words = guarded(["cohort.fraction=0.1", "evaluate.clients_every=2"], mode, 3.0)
    assert f"privacy.mode={mode}" in words
    assert "privacy.epsilon=3.0" in words
    assert load(None, words).upload.codec == "auto", "which knows of privacy"
    assert ("strategy.weighting=uniform" in words) == (mode == "central")
    assert "evaluate.clients_every=0" not in words
    with pytest.raises(FedpressError, match="--privacy"):
        guarded([], None, 3.0)
    with pytest.raises(FedpressError, match="got both"):
        guarded(["privacy.epsilon=8"], mode, 3.0)


def test_what_the_plan_says_of_metrics_stands(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[privacy]\nmetrics_noise = 2.0\n[strategy]\nweighting = "uniform"\n')
    codecs = ["upload.codec=raw", "download.codec=raw"]
    assert guarded([str(tmp_path / "plan.toml"), *codecs], "central", None) == ["privacy.mode=central"]
