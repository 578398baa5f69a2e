"""``fedpress privacy RUN`` on real ledgers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpress import plan as plans
from fedpress.cli import app
from fedpress.errors import DataError, LedgerError
from fedpress.privacy.accountants import Charge, epsilon
from fedpress.privacy.ledger import LEDGER_FILE, POPULATION, Ledger, Report, Spend, client
from fedpress.simulations import spending

DELTA = 1e-5
POISSON = Charge(1.0, "poisson", 0.1)


def output(*words: str) -> str:
    result = CliRunner().invoke(app, ["privacy", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "plan.toml").write_text(plans.to_toml(plans.load(None, ["privacy.max_epsilon=5"])))
    return tmp_path


def charged(run: Path, *lines: Spend | Report, rounds: int = 12) -> None:
    ledger = Ledger(run / LEDGER_FILE, DELTA, durable=False)
    for round_ in range(1, rounds + 1):
        ledger.charge("demo-7", round_, lines)
    ledger.close()


def test_it_says_what_is_spent_what_is_left_and_what_more_would_cost(run: Path) -> None:
    charged(run, Spend(POPULATION, POISSON))
    said = output(str(run), "--rounds", "20")
    spent = epsilon([POISSON._replace(times=12)], DELTA)
    later = epsilon([POISSON._replace(times=32)], DELTA)
    by_renyi = epsilon([POISSON._replace(times=12)], DELTA, "rdp")
    for expected in (f"{spent:.3f}", f"{by_renyi:.3f}", f"{5 - spent:.3f}", f"{later:.3f}"):
        assert expected in said
    assert "the last 10 of 12 releases" in said
    assert "chain of 12 entries is whole" in said
    assert f"20 more rounds like the last would take the population to epsilon {later:.3f}." in said
    left = spending.read(run).statement.population.rounds_left(5.0)  # type: ignore[union-attr]
    assert f"The budget of 5 allows {left} more for the population." in said
    assert "past the budget of 5" in output(str(run), "--rounds", str(left + 1))
    assert "of 12 releases" not in output(str(run), "--all")


def test_a_head_that_was_kept_shows_whether_the_ledger_still_holds_it(run: Path) -> None:
    charged(run, Spend(POPULATION, POISSON), rounds=3)
    head = spending.read(run).statement.head.hash
    assert head in output(str(run))
    charged(run, Spend(POPULATION, POISSON), rounds=5)
    assert "chain of 5 entries is whole" in output(str(run), "--head", head)
    (run / LEDGER_FILE).unlink()
    charged(run, Spend(POPULATION, POISSON), rounds=2)
    with pytest.raises(LedgerError, match="its end is missing"):
        output(str(run), "--head", head)


def test_clients_are_counted_and_not_named(run: Path) -> None:
    charged(run, *(Spend(client(f"phone-{i}"), Charge(30.0, "none")) for i in range(5)), rounds=2)
    said = output(str(run))
    assert "most of 5 clients" in said
    assert "median of 5 clients" in said
    assert "phone" not in said


def test_what_devices_report_is_said_to_be_theirs(run: Path) -> None:
    charged(run, Report(client("a"), 0.75, 1e-6), Report(client("b"), 1.5, 1e-6), rounds=1)
    said = output(str(run))
    assert "2 clients by own account" in said
    assert "most of 2 devices, by their own account" in said
    assert "at delta 1e-06" in said


def test_fixed_cohorts_say_against_what_they_promise(run: Path) -> None:
    charged(run, Spend(POPULATION, Charge(4.0, "fixed", 0.1)), rounds=1)
    assert "replacing one client by another" in output(str(run))


def test_a_run_without_a_ledger_is_said(run: Path) -> None:
    with pytest.raises(DataError, match=r"has no privacy ledger .* privacy\.mode = \"none\""):
        output(str(run))
    with pytest.raises(DataError, match="Expected the directory of a run"):
        output(str(run / "nowhere"))
    assert not (run / LEDGER_FILE).exists()


def test_a_ledger_that_was_changed_is_said(run: Path) -> None:
    charged(run, Spend(POPULATION, POISSON), rounds=3)
    db = sqlite3.connect(run / LEDGER_FILE)
    db.execute("DROP TRIGGER no_update")
    db.execute("UPDATE entries SET epsilon = 0.01 WHERE number = 2")
    db.commit()
    db.close()
    with pytest.raises(LedgerError, match="Entry 2 of the ledger"):
        output(str(run))


def test_help_teaches_by_an_example() -> None:
    assert "fedpress privacy runs/demo --rounds 20" in output("--help")
