"""The ledger: every use of a privacy budget, durable before the thing it pays for is released.

One SQLite file (WAL), which several runs on the same clients may share: what a party has spent is over all of it.

- **Append-only.** Triggers refuse to change or delete entries, and to insert out of order.
- **Chained.** Each entry's hash covers the one before it (``privacy.entries``); nothing is built on an entry before its
  hash was checked. Whoever can write the file can also write all of it anew, or cut off its end: against that, keep
  ``head`` somewhere else and hand it to ``verify``.
- **Paid once.** There is one entry for a run, round, party and mechanism. Charged again it is not written again: a
  crash after the entry and before the release costs nothing twice, because nothing was released.
- **Composed.** Epsilon is that of all of a party's charges together (``privacy.accountants``); what the population was
  charged, each client was. What a device reports of itself (local privacy, per example) is kept beside, marked as
  reported, and composes with nothing here.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedpress.errors import BudgetSpent, LedgerError, PrivacyError
from fedpress.privacy.accountants import Charges, epsilon, extended
from fedpress.privacy.entries import (
    GENESIS,
    POPULATION,
    Entry,
    Head,
    Report,
    Spend,
    client,
    parameters,
    parsed,
    sealed,
    spoken,
    unpacked,
)

__all__ = ["POPULATION", "Entry", "Head", "Ledger", "Report", "Spend", "client"]

SCHEMA: Final = 1
#: In a run's directory, where the plan names no other.
LEDGER_FILE: Final = "ledger.sqlite"
#: Seconds to wait for another process that is writing.
_PATIENCE: Final = 60.0
_COLUMNS: Final = ", ".join(Entry._fields)
_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
  number INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL, party TEXT NOT NULL, mechanism TEXT NOT NULL,
  parameters TEXT NOT NULL, epsilon REAL NOT NULL, delta REAL NOT NULL, reported INTEGER NOT NULL, time TEXT NOT NULL,
  hash TEXT NOT NULL, UNIQUE (run, round, party, mechanism)
);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries BEGIN
  SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries BEGIN
  SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS in_order BEFORE INSERT ON entries
  WHEN NEW.number != (SELECT COALESCE(MAX(number), 0) + 1 FROM entries) OR EXISTS (SELECT 1 FROM entries
    WHERE run = NEW.run AND round = NEW.round AND party = NEW.party AND mechanism = NEW.mechanism) BEGIN
  SELECT RAISE(ABORT, 'a ledger is append-only'); END;
INSERT OR IGNORE INTO meta VALUES ('schema', '{SCHEMA}');
COMMIT;
"""


class Ledger:
    """A ledger file, created where there is none. All methods run on one thread; other processes may write meanwhile.

    ``delta``: what epsilons are computed at. ``durable`` False leaves out fsync: for simulations, where a power cut
    costs nothing. Raises LedgerError for a file that is no ledger, or whose chain is broken.
    """

    def __init__(self, path: Path, delta: float, durable: bool = True) -> None:
        if not 0 < delta < 1:
            raise PrivacyError(f"Expected 0 < delta < 1, got {delta!r} (privacy.delta).")
        self._path, self._delta = path, delta
        self._charged: dict[str, Charges] = {}
        self._reports: dict[str, float] = {}
        self._head = GENESIS
        with self._ours():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            self._open(durable)
            self._catch_up()
        except BaseException:
            self._db.close()
            raise

    def _open(self, durable: bool) -> None:
        """Make the tables where there are none; check that these are ours."""
        with self._ours():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
                self._db.executescript(_TABLES)
            (schema,) = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() or (None,)
        if schema != str(SCHEMA):
            raise LedgerError(
                f"The ledger '{self._path}' has schema {schema}, this version of fedpress reads {SCHEMA}."
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- spending -------------------------------------------------------------------------------------------------

    def charge(
        self, run: str, round_: int, lines: Iterable[Spend | Report], budget: float | None = None
    ) -> list[Entry]:
        """Append an entry for each line, all or none; durable on return. Only then may be released what they pay for.

        Lines that are here already (same run, round, party, mechanism) are returned as they were written; of reports
        the first stands. Raises PrivacyError where such a charge says something else, and BudgetSpent, with nothing
        written, where a party would have spent more than ``budget``.
        """
        lines = list(lines)
        with self._ours(), self._transaction():
            self._catch_up()
            paid = self._paid(run, round_)
            if budget is not None:
                self._afford(round_, lines, paid, budget)
            made: list[Entry] = []
            fresh: dict[str, Charges] = {}
            for line in lines:
                key = (line.party, line.mechanism)
                if key not in paid:
                    entry = self._entry(run, round_, line, fresh)
                    made.append(paid.setdefault(key, sealed(entry, made[-1].head if made else self._head)))
                elif isinstance(line, Spend) and not paid[key].same(line):
                    raise PrivacyError(
                        f"Round {round_} of run '{run}' was charged to {spoken(line.party)} before, and differently: "
                        f"{paid[key].parameters} in entry {paid[key].number}, now {line}. "
                        "Go on with the plan as it was."
                    )
            self._db.executemany(
                f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(Entry._fields))})",
                [entry.row() for entry in made],
            )
        for entry in made:
            self._take(entry)
        return [paid[line.party, line.mechanism] for line in lines]

    def afford(self, run: str, round_: int, lines: Iterable[Spend], budget: float) -> None:
        """Raise BudgetSpent if ``charge`` with these lines would take a party past ``budget``. What this round was
        charged already, before a crash, is paid for and not counted again."""
        with self._ours():
            self._catch_up()
            self._afford(round_, lines, self._paid(run, round_), budget)

    def _afford(
        self, round_: int, lines: Iterable[Spend | Report], paid: Mapping[tuple[str, str], Entry], budget: float
    ) -> None:
        fresh: dict[str, Charges] = {}
        for line in lines:
            if isinstance(line, Spend) and (line.party, line.mechanism) not in paid:
                fresh[line.party] = extended(fresh.get(line.party, ()), line.charge)
        everybody = self._charged if POPULATION in fresh else {}
        for party in sorted({*fresh, *everybody}, key=lambda name: (name != POPULATION, name)):
            then = epsilon(self._composed(party, fresh), self._delta)
            if then > budget:
                spent = self.spent(party)
                raise BudgetSpent(
                    f"Round {round_} would take what {spoken(party)} has spent from epsilon {spent:.3f} to {then:.3f} "
                    f"at delta {self._delta:g}, past the budget of {budget:g}: {max(0.0, budget - spent):.3f} is left "
                    "(privacy.max_epsilon)."
                )

    def _entry(self, run: str, round_: int, line: Spend | Report, fresh: dict[str, Charges]) -> Entry:
        """The entry that a line makes, not in the chain yet; ``fresh`` holds what this release charges so far."""
        kept = parameters(line)
        reported = isinstance(line, Report)
        if isinstance(line, Report):
            total, delta = float(line.epsilon), float(line.delta)
        else:
            fresh[line.party] = extended(fresh.get(line.party, ()), line.charge)
            total, delta = epsilon(self._composed(line.party, fresh), self._delta), self._delta
            if not math.isfinite(total):
                raise PrivacyError(f"Round {round_} would promise {spoken(line.party)} nothing: {line.charge}.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Entry(0, run, round_, line.party, line.mechanism, kept, total, delta, reported, now, "")

    # -- reading --------------------------------------------------------------------------------------------------

    def history(self, party: str) -> Charges:
        """All that a party was charged, with the population or apart, as this ledger last saw it."""
        return self._composed(party, {})

    def _composed(self, party: str, fresh: Mapping[str, Charges]) -> Charges:
        """All that a party was charged, and ``fresh`` charges."""
        charges = self._charged.get(party, ())
        more = fresh.get(party, ())
        if party != POPULATION:
            more += self._charged.get(POPULATION, ()) + fresh.get(POPULATION, ())
        for charge in more:
            charges = extended(charges, charge)
        return charges

    def spent(self, party: str) -> float:
        """The epsilon of all that a party was charged, at this ledger's delta."""
        return epsilon(self.history(party), self._delta)

    def reported(self, party: str) -> float:
        """The largest epsilon that a device reported of itself; 0.0 if it never did."""
        return self._reports.get(party, 0.0)

    def parties(self) -> list[str]:
        """All parties with an entry, by name."""
        return sorted({*self._charged, *self._reports})

    def head(self) -> Head:
        """The last entry's number and hash."""
        with self._ours():
            self._catch_up()
        return self._head

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first, each checked against the chain. Raises LedgerError at the first that is bad."""
        with self._ours():
            yield from self._behind(GENESIS)

    def verify(self, kept: str = GENESIS.hash) -> Head:
        """Walk the whole chain; today's head. ``kept``: the hash of a head from before, which it must still hold.

        Raises LedgerError that names the first bad entry, or says that the ledger does not hold the head.
        """
        last, held = GENESIS, kept == GENESIS.hash
        for entry in self.entries():
            last = entry.head
            held = held or last.hash == kept
        if not held:
            raise LedgerError(
                f"The ledger '{self._path}' holds no entry with hash {kept[:64]}: it was replaced, its end is missing, "
                "or it is another ledger's."
            )
        return last

    def _behind(self, head: Head) -> Iterator[Entry]:
        """The entries behind ``head``, checked."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE number > ? ORDER BY number"
        for row in self._db.execute(query, (head.number,)):
            entry = parsed(row, head)
            if entry is None:
                raise LedgerError(
                    f"Entry {head.number + 1} of the ledger '{self._path}' is not what was written: it was changed, "
                    "removed or damaged. What was spent cannot be told from it; put back a copy."
                )
            head = entry.head
            yield entry

    def _paid(self, run: str, round_: int) -> dict[tuple[str, str], Entry]:
        """What a round was charged, by party and mechanism."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM entries WHERE run = ? AND round = ?", (run, round_))
        return {(entry.party, entry.mechanism): entry for entry in map(unpacked, rows)}

    def _catch_up(self) -> None:
        """Read what was appended since, by whomever."""
        with self._ours():
            for entry in self._behind(self._head):
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        """Count an entry in."""
        charge = entry.charge
        if charge is None:
            self._reports[entry.party] = max(self.reported(entry.party), entry.epsilon)
        else:
            self._charged[entry.party] = extended(self._charged.get(entry.party, ()), charge)
        self._head = entry.head

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """SQLite's and the file system's complaints as LedgerError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"The ledger '{self._path}' cannot be used: {error}.") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end; nobody else writes meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
