"""What a ledger comes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpress.privacy.accountants import Charge, epsilon
from fedpress.privacy.entries import GENESIS
from fedpress.privacy.ledger import POPULATION, Ledger, Report, Spend, client
from fedpress.privacy.statement import MANY, Account, state

DELTA = 1e-5
WHOLE = Charge(5.0, "none")
POISSON = Charge(1.0, "poisson", 0.1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite", DELTA, durable=False)
    yield opened
    opened.close()


def test_an_empty_ledger_says_nothing(ledger: Ledger) -> None:
    s = state(ledger, DELTA)
    assert (s.head, s.releases, s.population, s.clients, s.most, s.reported) == (GENESIS, [], None, 0, None, [])


def test_clients_are_stated_by_the_most_and_the_median(ledger: Ledger) -> None:
    for round_, names in enumerate(["abc", "ab", "a"], start=1):
        ledger.charge("r", round_, [Spend(client(name), WHOLE) for name in names])
    s = state(ledger, DELTA)
    assert s.clients == 3
    assert s.most is not None
    assert s.median is not None
    assert s.most.charges == (WHOLE._replace(times=3),)
    assert s.median.spent() == (epsilon(s.median.charges, DELTA), epsilon(s.median.charges, DELTA, "rdp"))
    assert s.median.charges == (WHOLE._replace(times=2),)
    assert [(r.parties, r.epsilon, r.last.number) for r in s.releases] == [
        (n, epsilon([WHOLE._replace(times=round_)], DELTA), last)
        for n, round_, last in ((3, 1, 3), (2, 2, 5), (1, 3, 6))
    ]
    assert s.head == ledger.head()


def test_more_rounds_are_like_the_last_with_all_that_it_was_charged(ledger: Ledger) -> None:
    ledger.charge("r", 1, [Spend(POPULATION, Charge(9.0, "none"))])
    metrics = Charge(20.0, "poisson", 0.1)
    ledger.charge("r", 2, [Spend(POPULATION, POISSON), Spend(POPULATION, metrics, "metrics")])
    account = state(ledger, DELTA).population
    assert account is not None
    assert sorted(account.last) == sorted((POISSON, metrics))
    before = [Charge(9.0, "none"), POISSON, metrics]
    assert account.after(0) == epsilon(before, DELTA)
    more = [POISSON._replace(times=7), metrics._replace(times=7)]
    assert account.after(7) == epsilon([*before, *more], DELTA)


def test_a_client_has_spent_what_the_population_has(ledger: Ledger) -> None:
    ledger.charge("unsampled", 1, [Spend(client("a"), WHOLE)])
    ledger.charge("sampled", 1, [Spend(POPULATION, POISSON)])
    s = state(ledger, DELTA)
    assert s.runs == 2
    assert s.population is not None
    assert s.most is not None
    assert s.population.after(0) == ledger.spent(POPULATION) < s.most.after(0) == ledger.spent(client("a"))
    assert s.most.last == (POISSON,)


@pytest.mark.parametrize(("charge", "budget"), [(POISSON, 5.0), (WHOLE, 3.0), (Charge(3.0, "fixed", 0.1), 8.0)])
def test_rounds_left_are_all_that_the_budget_allows_and_no_more(charge: Charge, budget: float) -> None:
    account = Account((charge,), (charge,), DELTA)
    left = account.rounds_left(budget)
    assert left > 0
    assert account.after(left) <= budget < account.after(left + 1)


def test_rounds_left_at_the_ends() -> None:
    account = Account((WHOLE,), (WHOLE,), DELTA)
    assert account.rounds_left(epsilon([WHOLE], DELTA)) == 0
    faint = Charge(1e6, "none")
    assert Account((faint,), (faint,), DELTA).rounds_left(8.0) == MANY


def test_what_devices_said_last_is_stated_apart(ledger: Ledger) -> None:
    ledger.charge("r", 1, [Report(client("a"), 0.5, 1e-6), Report(client("b"), 0.7, 1e-6)])
    ledger.charge("r", 2, [Report(client("a"), 0.9, 1e-6)])
    s = state(ledger, DELTA)
    assert (s.reported, s.deltas, s.clients, s.population) == ([0.7, 0.9], [1e-6], 0, None)
