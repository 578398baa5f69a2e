"""A run's privacy ledger, read and printed: ``fedpress privacy RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from fedpress import plan as plans
from fedpress.errors import DataError
from fedpress.privacy.central import accounted
from fedpress.privacy.entries import POPULATION
from fedpress.privacy.ledger import LEDGER_FILE, Ledger
from fedpress.privacy.statement import MANY, Account, Release, Statement, state
from fedpress.simulations.units import printable


class Spending(NamedTuple):
    """A run's ledger and what its plan allows; ``budget``: 0 for none."""

    path: Path
    statement: Statement
    budget: float


def read(run: Path, kept: str = "") -> Spending:
    """The ledger of a run's directory, verified. ``kept``: the hash of a head from before, which it must still hold.

    Raises DataError where there is none, LedgerError where it is bad.
    """
    if not (run / "plan.toml").is_file():
        raise DataError(f"Expected the directory of a run, with its plan.toml, got '{run}'.")
    plan = plans.load(run / "plan.toml")
    privacy, delta = plan.privacy, accounted(plan)
    path = privacy.ledger or run / LEDGER_FILE
    if not path.is_file():
        raise DataError(
            f"The run '{run}' has no privacy ledger ('{path}'): its plan has privacy.mode = \"{privacy.mode}\", "
            "and nothing was charged."
        )
    ledger = Ledger(path, delta)
    try:
        statement = state(ledger, delta)
        if kept:
            ledger.verify(kept)
    finally:
        ledger.close()
    return Spending(path, statement, privacy.budget)


def spent_table(spending: Spending, rounds: int) -> Table:
    """Who has spent what, what is left, and what ``rounds`` more rounds would cost (0: not asked)."""
    s, budget = spending.statement, spending.budget
    title = Text(f"spent: epsilon at delta {s.delta:g}")
    table = Table("who", "spent", "by Renyi (RDP)", title=title)
    if budget:
        table.add_column(f"left of {budget:g}")
    if rounds:
        table.add_column(f"after {rounds} more rounds")
    if budget:
        table.add_column("rounds left")
    accounts = {"the population, each client": s.population, _clients("most", s.clients): s.most}
    if s.clients > 1:
        accounts[_clients("median", s.clients)] = s.median
    for who, account in accounts.items():
        if account is not None:
            table.add_row(who, *_account(account, budget, rounds))
    if s.reported:
        devices = f"of {len(s.reported)} devices, by their own account"
        for which, spent in (("most", s.reported[-1]), ("median", s.reported[len(s.reported) // 2])):
            left = [_number(max(0.0, budget - spent))] if budget else []
            table.add_row(f"{which} {devices}", _number(spent), "", *left)
    return table


def entries_table(spending: Spending, newest: int | None) -> Table:
    """The ledger, a line per release: its ``newest`` (None: all)."""
    releases = spending.statement.releases
    shown = releases if newest is None else releases[-newest:]
    left_out = f", the last {len(shown)} of {len(releases)} releases" if len(shown) < len(releases) else ""
    table = Table("round", "run", "who", "mechanism", "noise", "sampling", "spent", "time (UTC)", "entry", "hash")
    table.title = Text(f"ledger {spending.path}{left_out}")
    for release in shown:
        entry = release.first
        table.add_row(
            str(entry.round),
            Text(printable(entry.run)),
            _who(release),
            Text(printable(entry.mechanism)),
            *_noise(release),
            _number(release.epsilon),
            entry.time[:19].replace("T", " "),
            str(release.last.number),
            release.last.hash[:12],
        )
    return table


def remarks(spending: Spending, rounds: int) -> list[str]:
    """What the tables mean, in sentences."""
    s, budget = spending.statement, spending.budget
    runs = f" of {s.runs} runs" if s.runs > 1 else ""
    found = [
        f"The chain of {s.head.number} entries{runs} is whole; its head is {s.head.hash}. "
        "Keep that elsewhere: --head HASH shows later that nothing was taken off the end."
    ]
    if any(_replacing(account) for account in (s.population, s.most)):
        found.append("Cohorts of fixed size: the promise is about replacing one client by another.")
    who, account = ("the client that spent most", s.most) if s.most else ("the population", s.population)
    if account and rounds:
        then = account.after(rounds)
        past = f", past the budget of {budget:g}" if budget and then > budget else ""
        found.append(f"{rounds} more rounds like the last would take {who} to epsilon {then:.3f}{past}.")
    if account and budget:
        found.append(f"The budget of {budget:g} allows {_count(account.rounds_left(budget))} more for {who}.")
    if s.reported:
        deltas = ", ".join(f"{delta:g}" for delta in s.deltas)
        found.append(
            f"Devices account for themselves, per example and at delta {deltas}: a fleet of honest devices is assumed."
        )
    return found


def _account(account: Account, budget: float, rounds: int) -> list[str]:
    pld, rdp = account.spent()
    row = [_number(pld), _number(rdp)]
    if budget:
        row.append(_number(max(0.0, budget - pld)))
    if rounds:
        row.append(_number(account.after(rounds)))
    if budget:
        row.append(_count(account.rounds_left(budget)))
    return row


def _clients(which: str, count: int) -> str:
    return f"{which} of {count} clients" if count > 1 else "one client"


def _who(release: Release) -> str:
    if release.first.party == POPULATION:
        return POPULATION
    reported = "by own account" if release.first.reported else ""
    return f"{release.parties} client{'s' * (release.parties > 1)} {reported}".rstrip()


def _noise(release: Release) -> tuple[str, str]:
    charge = release.first.charge
    if charge is None:
        return "", ""
    times = f", {charge.times} times" if charge.times > 1 else ""
    rate = f" {charge.rate:.4g}" if charge.sampling != "none" else ""
    return f"{charge.noise_multiplier:.4g}", f"{charge.sampling}{rate}{times}"


def _replacing(account: Account | None) -> bool:
    return account is not None and any(charge.sampling == "fixed" for charge in account.charges)


def _number(epsilon: float) -> str:
    return f"{epsilon:.3f}"


def _count(rounds: int) -> str:
    return f"more than {MANY}" if rounds >= MANY else str(rounds)
