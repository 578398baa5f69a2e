"""The SQLite file (WAL) that a run lives in: its tables, how it is opened, and what a transaction promises.

A transaction is durable when it ends: ``synchronous = FULL`` flushes the log. Large values are written through SQLite's
blob handles: a bound value would be held three times. All methods run on one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fedpress.errors import StoreError

SCHEMA: Final = 3
#: Bytes of a page: with SQLite's 4096, a model is a chain of so many pages that writing it takes three times as long.
_PAGE: Final = 1 << 14
#: The log's size before it is written back: uploads that a round forgets again are then never written twice.
_WAL_BYTES: Final = 1 << 26
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clients (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, key_hash TEXT NOT NULL, device_class TEXT NOT NULL,
  capabilities BLOB NOT NULL DEFAULT x''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
  id TEXT PRIMARY KEY, client TEXT NOT NULL, round INTEGER NOT NULL, evaluate INTEGER NOT NULL, fate TEXT NOT NULL,
  bytes_up INTEGER NOT NULL DEFAULT 0, bytes_down INTEGER NOT NULL DEFAULT 0, models_down INTEGER NOT NULL DEFAULT 0,
  report BLOB NOT NULL DEFAULT x'', codec TEXT NOT NULL, reason TEXT NOT NULL,
  ended INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL DEFAULT 0, memory INTEGER NOT NULL DEFAULT 0,
  handed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leases_by_end ON leases (ended, place);
CREATE INDEX IF NOT EXISTS leases_by_client ON leases (client, round);
CREATE TABLE IF NOT EXISTS chunks (ticket TEXT NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (ticket, start));
CREATE TABLE IF NOT EXISTS versions (
  number INTEGER PRIMARY KEY, codec TEXT NOT NULL, full INTEGER NOT NULL, base TEXT NOT NULL, hash TEXT NOT NULL,
  payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS hashes (number INTEGER PRIMARY KEY, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tensors (what TEXT NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY (what, name));
CREATE TABLE IF NOT EXISTS memories (client TEXT NOT NULL, round INTEGER NOT NULL, tag INTEGER NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY (client, round));
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS releases (
  device_class TEXT PRIMARY KEY, hash TEXT NOT NULL, format TEXT NOT NULL, metrics TEXT NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """One file, and its facts. ``durable`` False leaves out fsync: for simulations, where a power cut costs nothing.

    Raises StoreError for a file that is no database, or of another schema.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._durable = durable
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size = {_PAGE}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // _PAGE}")
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"The run's store '{path}' cannot be opened: {error}.") from error
        known = self.meta("schema")
        if known is None:
            self.set_meta("schema", str(SCHEMA))
        elif known != str(SCHEMA):
            raise StoreError(f"The store '{path}' has schema {known}, this version of fedpress reads {SCHEMA}.")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """What is written here is durable with the next transaction, not by itself."""
        relaxed = self._durable and not self._db.in_transaction
        if relaxed:
            self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            if relaxed:
                self._db.execute("PRAGMA synchronous = FULL")

    def meta(self, key: str) -> str | None:
        """A fact of the run."""
        row = self.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact of the run."""
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement; its rows."""
        return self._db.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each of many rows."""
        self._db.executemany(statement, rows)

    def put(self, table: str, values: Sequence[Any], blob: str, data: bytes | memoryview) -> None:
        """Insert or replace a row: ``values``, and in its last column, called ``blob``, the bytes of ``data``."""
        row = (*values, len(data))
        places = ", ".join("?" for _ in values)
        at = self.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places}, zeroblob(?))", row).lastrowid or 0
        with self._db.blobopen(table, blob, at) as handle:
            handle.write(data)
