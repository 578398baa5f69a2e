"""The ledger on real files, with real processes that are killed, and with real hands in it."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedpress.errors import BudgetSpent, LedgerError, PrivacyError
from fedpress.privacy.accountants import Charge, epsilon
from fedpress.privacy.entries import GENESIS
from fedpress.privacy.ledger import POPULATION, Head, Ledger, Report, Spend, client

DELTA = 1e-5
POISSON = Charge(1.0, "poisson", 0.1)
WHOLE = Charge(5.0, "none")


def population(charge: Charge = POISSON) -> list[Spend]:
    return [Spend(POPULATION, charge, facts={"bound": 0.5, "cohort": 10})]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path, DELTA)
    yield opened
    opened.close()


def filled(path: Path, rounds: int = 5) -> Head:
    ledger = Ledger(path, DELTA)
    for round_ in range(1, rounds + 1):
        ledger.charge("r", round_, [*population(), Spend(client("a"), WHOLE), Report(client("b"), round_ / 2, 1e-6)])
    head = ledger.verify()
    ledger.close()
    return head


# -- what it says -----------------------------------------------------------------------------------------------------


def test_each_entry_says_what_its_party_has_spent_in_all(ledger: Ledger) -> None:
    for round_ in (1, 2, 3):
        (entry,) = ledger.charge("r", round_, population())
        assert (entry.number, entry.round, entry.party, entry.delta) == (round_, round_, POPULATION, DELTA)
        assert entry.epsilon == epsilon([POISSON._replace(times=round_)], DELTA) == ledger.spent(POPULATION)
        assert entry.parameters == {"bound": 0.5, "cohort": 10, **POISSON._asdict()}
        assert entry.charge == POISSON
    assert ledger.history(POPULATION) == (POISSON._replace(times=3),)


def test_parties_are_apart_and_mechanisms_compose(ledger: Ledger) -> None:
    lines = [Spend(client("a"), WHOLE), Spend(client("a"), Charge(30.0, "none"), "metrics"), Spend(client("b"), WHOLE)]
    first, both, other = ledger.charge("r", 1, lines)
    assert first.epsilon == other.epsilon == epsilon([WHOLE], DELTA)
    assert both.epsilon == epsilon([WHOLE, Charge(30.0, "none")], DELTA) == ledger.spent(client("a"))
    assert ledger.parties() == [client("a"), client("b")]


def test_what_the_population_was_charged_each_client_was(ledger: Ledger) -> None:
    ledger.charge("sampled", 1, population())
    ledger.charge("unsampled", 1, [Spend(client("a"), WHOLE)])
    assert ledger.spent(POPULATION) == ledger.spent(client("new")) == epsilon([POISSON], DELTA)
    assert ledger.spent(client("a")) == epsilon([POISSON, WHOLE], DELTA)
    (entry,) = ledger.charge("unsampled", 2, [Spend(client("a"), WHOLE)])
    assert entry.epsilon == ledger.spent(client("a")) == epsilon([POISSON, WHOLE._replace(times=2)], DELTA)
    enough_for_most = epsilon([POISSON._replace(times=2)], DELTA)
    with pytest.raises(BudgetSpent, match="client 'a'"):
        ledger.afford("sampled", 2, population(), enough_for_most)


def test_what_devices_report_is_kept_and_composes_with_nothing(ledger: Ledger) -> None:
    facts = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 40}
    (entry,) = ledger.charge("r", 1, [Report(client("a"), 1.25, 1e-6, facts=facts)])
    assert (entry.reported, entry.epsilon, entry.delta, entry.charge) == (True, 1.25, 1e-6, None)
    assert entry.parameters == facts
    ledger.charge("r", 2, [Spend(client("a"), WHOLE), Report(client("a"), 1.5, 1e-6)])
    assert ledger.reported(client("a")) == 1.5
    assert ledger.spent(client("a")) == epsilon([WHOLE], DELTA)
    with pytest.raises(PrivacyError, match="finite epsilon >= 0"):
        ledger.charge("r", 3, [Report(client("a"), float("nan"), 1e-6)])


def test_runs_share_a_ledger(path: Path, ledger: Ledger) -> None:
    other = Ledger(path, 1e-6)
    ledger.charge("one", 1, population())
    (entry,) = other.charge("two", 1, population())
    assert entry.epsilon == epsilon([POISSON._replace(times=2)], 1e-6)
    assert ledger.head() == entry.head
    assert ledger.spent(POPULATION) == epsilon([POISSON._replace(times=2)], DELTA)
    other.close()


# -- paid once, and never too much ------------------------------------------------------------------------------------


def test_the_same_again_is_not_charged_again(path: Path, ledger: Ledger) -> None:
    lines: list[Spend | Report] = [*population(), Report(client("b"), 0.5, 1e-6)]
    first = ledger.charge("r", 1, lines)
    assert ledger.charge("r", 1, lines) == first
    reopened = Ledger(path, DELTA)
    assert reopened.charge("r", 1, [*lines, Spend(client("c"), WHOLE)])[:2] == first
    assert [entry.number for entry in reopened.entries()] == [1, 2, 3]
    reopened.close()


@pytest.mark.parametrize(
    "line",
    [
        Spend(POPULATION, POISSON._replace(noise_multiplier=2.0), facts={"bound": 0.5, "cohort": 10}),
        Spend(POPULATION, POISSON, facts={"bound": 0.6, "cohort": 10}),
    ],
)
def test_a_round_that_was_charged_cannot_be_charged_otherwise(ledger: Ledger, line: Spend) -> None:
    (entry,) = ledger.charge("r", 1, population())
    with pytest.raises(PrivacyError, match="Round 1 of run 'r' was charged to the population before, and differently"):
        ledger.charge("r", 1, [Spend(client("a"), WHOLE), line])
    assert list(ledger.entries()) == [entry]


def test_of_what_a_device_says_in_a_round_the_first_stands(ledger: Ledger) -> None:
    """A crash may come between the entry and its release, and another update of the same client after it."""
    first = ledger.charge("r", 1, [Report(client("a"), 1.0, DELTA)])
    assert ledger.charge("r", 1, [Report(client("a"), 1.5, DELTA)]) == first


def test_a_round_past_the_budget_does_not_begin(ledger: Ledger) -> None:
    budget = epsilon([POISSON._replace(times=2)], DELTA)
    ledger.charge("r", 1, population(), budget)
    ledger.afford("r", 2, population(), budget)
    ledger.charge("r", 2, population(), budget)
    said = rf"Round 3 .* the population .* from epsilon {budget:.3f} to .* past the budget of .*: 0\.000 is left"
    with pytest.raises(BudgetSpent, match=said):
        ledger.afford("r", 3, population(), budget)
    with pytest.raises(BudgetSpent, match=said):
        ledger.charge("r", 3, [Spend(client("a"), WHOLE), *population()], budget)
    assert ledger.head().number == 2
    ledger.afford("r", 2, population(), budget)  # paid for: it may be done again


def test_a_budget_is_for_all_that_a_round_charges_to_one_party(ledger: Ledger) -> None:
    lines = [Spend(client("a"), WHOLE), Spend(client("a"), WHOLE, "metrics")]
    with pytest.raises(BudgetSpent, match="client 'a'"):
        ledger.afford("r", 1, lines, epsilon([WHOLE], DELTA))
    ledger.afford("r", 1, lines, epsilon([WHOLE._replace(times=2)], DELTA))


def test_lines_that_mean_nothing_are_refused(path: Path, ledger: Ledger) -> None:
    for line in (Spend("a", WHOLE), Spend(client(""), WHOLE), Spend(POPULATION, Charge(0.0, "none"))):
        with pytest.raises(PrivacyError, match="Expected"):
            ledger.charge("r", 1, [Spend(client("b"), WHOLE), line])
    with pytest.raises(PrivacyError, match="Expected a ledger's facts"):
        ledger.charge("r", 1, [Spend(POPULATION, WHOLE, facts={"bound": float("nan")})])
    assert ledger.verify() == GENESIS
    with pytest.raises(PrivacyError, match=r"0 < delta < 1, got 0 \(privacy\.delta\)"):
        Ledger(path, 0)


# -- what was written stays -------------------------------------------------------------------------------------------


def test_the_file_refuses_to_forget(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    for tried in (
        "UPDATE entries SET epsilon = 0.1 WHERE number = 2",
        "DELETE FROM entries WHERE number = 15",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE number = 1",
        "INSERT INTO entries SELECT 20, 'r', 9, party, mechanism, parameters, 0, 0, 0, time, hash FROM entries LIMIT 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(tried)
    db.close()


@pytest.mark.parametrize(
    ("tampering", "bad"),
    [
        ("UPDATE entries SET epsilon = 0.1 WHERE number = 7", 7),
        ("UPDATE entries SET epsilon = 'much' WHERE number = 7", 7),
        ("UPDATE entries SET parameters = REPLACE(parameters, '5.0', '9.0') WHERE number = 8", 8),
        ("UPDATE entries SET parameters = '[' WHERE number = 8", 8),
        ("UPDATE entries SET reported = 1 WHERE number = 1", 1),
        ("UPDATE entries SET round = 77 WHERE number = 15", 15),
        ("UPDATE entries SET hash = (SELECT hash FROM entries WHERE number = 3) WHERE number = 4", 4),
        ("DELETE FROM entries WHERE number = 5", 5),
        ("UPDATE entries SET number = 99 WHERE number = 15", 15),
    ],
)
def test_a_hand_in_the_file_is_found(path: Path, tampering: str, bad: int) -> None:
    head = filled(path)
    watching = Ledger(path, DELTA)
    assert watching.verify(head.hash) == head
    db = sqlite3.connect(path)
    for name in ("no_update", "no_delete", "in_order"):
        db.execute(f"DROP TRIGGER {name}")
    db.execute(tampering)
    db.commit()
    db.close()
    with pytest.raises(LedgerError, match=f"^Entry {bad} of the ledger .* is not what was written"):
        watching.verify()
    watching.close()
    with pytest.raises(LedgerError, match=f"^Entry {bad} of"):  # nothing is built on it either
        Ledger(path, DELTA)


def test_a_missing_end_is_found_by_who_kept_the_head(path: Path) -> None:
    head = filled(path)
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER no_delete")
    db.execute("DELETE FROM entries WHERE number > 12")
    db.commit()
    db.close()
    ledger = Ledger(path, DELTA)
    assert ledger.verify().number == 12
    with pytest.raises(LedgerError, match=f"holds no entry with hash {head.hash}"):
        ledger.verify(head.hash)
    ledger.close()


def test_files_that_are_no_ledger_are_said(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(path, DELTA)
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(path / "below", DELTA)
    filled(tmp_path / "old")
    db = sqlite3.connect(tmp_path / "old")
    db.execute("UPDATE meta SET value = '0'")
    db.commit()
    db.close()
    with pytest.raises(LedgerError, match="has schema 0, this version of fedpress reads 1"):
        Ledger(tmp_path / "old", DELTA)


# -- others at the same time, and sudden ends -------------------------------------------------------------------------


def test_many_open_and_charge_at_once(path: Path) -> None:
    def work(worker: int) -> None:
        ledger = Ledger(path, DELTA, durable=False)
        for round_ in range(20):
            ledger.charge(f"run-{worker}", round_, [Spend(client("a"), WHOLE), Spend(client("b"), WHOLE)])
        ledger.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    ledger = Ledger(path, DELTA)
    assert ledger.verify().number == 160
    assert ledger.history(client("a")) == (WHOLE._replace(times=80),)
    ledger.close()


#: Charges three parties a round, and says so when it is done.
CHARGER = """
import sys
from pathlib import Path
from fedpress.privacy.accountants import Charge
from fedpress.privacy.ledger import Ledger, Spend, client
ledger = Ledger(Path(sys.argv[1]), 1e-5)
for round_ in range(100_000):
    ledger.charge("r", round_, [Spend(client(name), Charge(50.0, "none")) for name in "abc"])
    sys.stdout.write(f"{round_}\\n")
    sys.stdout.flush()
"""


def test_kill_9_at_any_time_leaves_whole_rounds_and_charges_nothing_twice(path: Path) -> None:
    rng = random.Random(5)
    rounds = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CHARGER, str(path)], stdout=subprocess.PIPE, env=dict(os.environ)
        ) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < rounds + 5:  # all rounds of its former lives again, and new ones
                pass
            time.sleep(rng.uniform(0.0, 0.1))
            process.kill()
            said = process.stdout.read().split()
        ledger = Ledger(path, DELTA)
        charged = [entry.round for entry in ledger.entries()]
        rounds = len(charged) // 3
        assert charged == [round_ for round_ in range(rounds) for _ in "abc"]  # whole, in order, each once
        assert not said or rounds > int(said[-1])  # all that it said was durable is here
        assert ledger.history(client("b")) == (Charge(50.0, "none", 1.0, rounds),)
        ledger.close()
