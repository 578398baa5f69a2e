"""What the server must not lose, in SQLite (WAL): clients, leases, updates, model versions, rounds, releases.

An update is durable before it is acknowledged, and a round is committed in one transaction, so that after ``kill -9``
at any instant the server resumes the same round from this one file. Payloads are kept as rows of at most 256 KiB: an
upload resumes at the byte where it broke, and reading one back never holds it twice. Tensors and versions are written
through SQLite's blob handles: a bound value would be held three times. All methods run on one thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from fedpress.compression.download import Link
from fedpress.errors import StoreError
from fedpress.params import Array, Spec, Tensors, ordered
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease

SCHEMA: Final = 3
#: Bytes of a page: with SQLite's 4096, a model is a chain of so many pages that writing it takes three times as long.
_PAGE: Final = 1 << 14
#: The log's size before it is written back: uploads that a round forgets again are then never written twice.
_WAL_BYTES: Final = 1 << 26
#: A lease's columns, for ``_lease``.
_LEASE: Final = "id, client, round, evaluate, fate, handed"
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


@dataclass(frozen=True)
class Client:
    """One enrolled device. ``key_hash`` is the SHA-256 of its key, hex."""

    id: str
    name: str
    key_hash: str
    device_class: str


@dataclass(frozen=True)
class Traffic:
    """What one lease cost so far: payload bytes each way, and models downloaded (for the uncompressed comparison)."""

    bytes_up: int
    bytes_down: int
    models_down: int


class Habits(NamedTuple):
    """Rounds a client was invited to, the first of all (0: none yet), and its last serialised report."""

    invited: int
    since: int
    report: bytes


@dataclass(frozen=True)
class Release:
    """A shipped model file."""

    device_class: str
    hash: str
    format: str
    metrics: Mapping[str, float]
    data: bytes


class Store:
    """One run's database. ``durable`` False leaves out fsync: for simulations, where a power cut costs nothing."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._synchronous = "FULL" if durable else "OFF"
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size = {_PAGE}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
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
        """Close the database."""
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

    # -- facts ----------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A fact of the run."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact of the run."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # -- clients --------------------------------------------------------------------------------------------------

    def add_client(self, client: Client) -> None:
        """Keep a new client. Raises StoreError if the name is taken."""
        try:
            self._db.execute(
                "INSERT INTO clients (id, name, key_hash, device_class) VALUES (?, ?, ?, ?)",
                (client.id, client.name, client.key_hash, client.device_class),
            )
        except sqlite3.IntegrityError as error:
            raise StoreError(f"The name '{client.name}' belongs to another device.") from error

    def clients(self) -> list[Client]:
        """All clients ever enrolled."""
        return [Client(*row) for row in self._db.execute("SELECT id, name, key_hash, device_class FROM clients")]

    def set_capabilities(self, client: str, said: bytes) -> None:
        """Keep what a client said last that it can do (a serialised message)."""
        self._db.execute("UPDATE clients SET capabilities = ? WHERE id = ?", (said, client))

    def capabilities(self) -> dict[str, bytes]:
        """What all clients said last, by client id."""
        return dict(self._db.execute("SELECT id, capabilities FROM clients"))

    # -- leases and updates ---------------------------------------------------------------------------------------

    def add_leases(self, leases: Iterable[Lease], choices: Mapping[str, Choice]) -> None:
        """Keep new leases, and how the update of each is coded."""
        self._db.executemany(
            "INSERT INTO leases (id, client, round, evaluate, fate, codec, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(v.id, v.client, v.round, v.evaluate, v.fate.value, *choices[v.id]) for v in leases],
        )

    def hand_out(self, ticket: str) -> None:
        """A lease's client was told of it."""
        self._db.execute("UPDATE leases SET handed = 1 WHERE id = ?", (ticket,))

    def move_lease(self, lease: Lease, choice: Choice) -> None:
        """A lease that was not handed out yet is of a later round now."""
        self._db.execute(
            "UPDATE leases SET round = ?, codec = ?, reason = ? WHERE id = ?", (lease.round, *choice, lease.id)
        )

    def choices(self, round_: int) -> dict[str, Choice]:
        """How the updates of leases that are open, or ended in a round, are coded, by ticket."""
        rows = self._db.execute("SELECT id, codec, reason FROM leases WHERE ended IN (0, ?)", (round_,))
        return {ticket: Choice(codec, reason) for ticket, codec, reason in rows}

    def habits(self, client: str, since: int) -> Habits:
        """How often a client was invited to train after round ``since``, and what it said last."""
        invited, first = self._db.execute(
            "SELECT COALESCE(SUM(round > ?), 0), COALESCE(MIN(round), 0) FROM leases WHERE client = ? AND evaluate = 0",
            (since, client),
        ).fetchone()
        said = self._db.execute(
            "SELECT report FROM leases WHERE client = ? AND evaluate = 0 AND fate = ? ORDER BY round DESC LIMIT 1",
            (client, Fate.COUNTED.value),
        ).fetchone()
        return Habits(invited, first, said[0] if said else b"")

    def lease(self, ticket: str) -> Lease | None:
        """A lease of any round."""
        row = self._db.execute(f"SELECT {_LEASE} FROM leases WHERE id = ?", (ticket,)).fetchone()
        return None if row is None else _lease(row)

    def leases(self, round_: int, evaluate: bool) -> list[Lease]:
        """The leases that are open, or ended in one round."""
        query = f"SELECT {_LEASE} FROM leases WHERE ended IN (0, ?) AND evaluate = ?"
        return [_lease(row) for row in self._db.execute(query, (round_, evaluate))]

    def end_lease(
        self, ticket: str, round_: int, fate: Fate, traffic: Traffic, report: bytes = b"", memory: int = 0
    ) -> None:
        """How a lease ended, in which round, and what it cost. ``memory``: the tag its update was coded against."""
        self._db.execute(
            "UPDATE leases SET ended = ?1, place = (SELECT COALESCE(MAX(place), 0) + 1 FROM leases WHERE ended = ?1), "
            "fate = ?2, bytes_up = ?3, bytes_down = ?4, models_down = ?5, report = ?6, memory = ?7 WHERE id = ?8",
            (round_, fate.value, traffic.bytes_up, traffic.bytes_down, traffic.models_down, report, memory, ticket),
        )

    def expire(self, round_: int) -> None:
        """All open leases are stale: they ended in this round."""
        self._db.execute("UPDATE leases SET fate = 'stale', ended = ? WHERE ended = 0", (round_,))

    def give_up(self, round_: int) -> None:
        """What was counted into a round does not count: it is never to be folded."""
        updates = "SELECT id FROM leases WHERE ended = ? AND fate = 'counted' AND evaluate = 0"
        self._db.execute(f"DELETE FROM chunks WHERE ticket IN ({updates})", (round_,))
        self._db.execute(f"UPDATE leases SET fate = 'stale' WHERE id IN ({updates})", (round_,))

    def counted(self, round_: int) -> list[tuple[Lease, bytes, int]]:
        """The updates folded into a round, in that order: lease, serialised report, tag of its codec's memory."""
        rows = self._db.execute(
            f"SELECT {_LEASE}, report, memory FROM leases WHERE ended = ? AND fate = ? AND evaluate = 0 ORDER BY place",
            (round_, Fate.COUNTED.value),
        )
        return [(_lease(r), r[6], r[7]) for r in rows]

    def reports(self, round_: int, evaluate: bool) -> list[tuple[Lease, str, Traffic, bytes]]:
        """Every lease that ended in a round with its client's name, traffic and serialised report."""
        rows = self._db.execute(
            f"SELECT {_LEASE}, name, bytes_up, bytes_down, models_down, report FROM leases "
            "JOIN (SELECT id AS owner, name FROM clients) ON owner = client "
            "WHERE ended = ? AND evaluate = ? ORDER BY name, place",
            (round_, evaluate),
        )
        return [(_lease(r), r[6], Traffic(r[7], r[8], r[9]), r[10]) for r in rows]

    def history(self) -> Iterator[tuple[Lease, Traffic, bytes, float]]:
        """Every lease of training, as they ended: its traffic, its report, and the seconds of the round in which it did
        (0: not over)."""
        rows = self._db.execute(
            "SELECT id, client, l.round, evaluate, fate, handed, bytes_up, bytes_down, models_down, report, "
            "COALESCE(json_extract(record, '$.seconds'), 0.0) FROM leases l LEFT JOIN rounds r ON r.round = l.ended "
            "WHERE evaluate = 0 ORDER BY ended = 0, ended, place, l.round"
        )
        for row in rows:
            yield _lease(row[:6]), Traffic(*row[6:9]), row[9], row[10]

    def append(self, ticket: str, start: int, data: bytes) -> None:
        """Keep a stretch of an update's payload; durable with the next transaction, not by itself."""
        relaxed = self._synchronous == "FULL" and not self._db.in_transaction
        if relaxed:
            self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (ticket, start, data))
        if relaxed:
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")

    def received(self, ticket: str) -> int:
        """Bytes of an update that are here."""
        row = self._db.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM chunks WHERE ticket = ?", (ticket,))
        return int(row.fetchone()[0])

    def payload(self, ticket: str) -> bytearray:
        """An update's payload, put together without holding it twice."""
        whole = bytearray(self.received(ticket))
        for start, data in self._db.execute(
            "SELECT start, data FROM chunks WHERE ticket = ? ORDER BY start", (ticket,)
        ):
            whole[start : start + len(data)] = data
        return whole

    def discard(self, ticket: str) -> None:
        """Forget what arrived of an update."""
        self._db.execute("DELETE FROM chunks WHERE ticket = ?", (ticket,))

    def discard_updates(self) -> None:
        """Forget all payloads but those of open leases: the round they belong to is committed."""
        if self._db.execute("SELECT 1 FROM leases WHERE ended = 0 LIMIT 1").fetchone():
            self._db.execute("DELETE FROM chunks WHERE ticket NOT IN (SELECT id FROM leases WHERE ended = 0)")
        else:  # much faster
            self._db.execute("DELETE FROM chunks")

    # -- what codecs remember of clients --------------------------------------------------------------------------

    def set_memory(self, client: str, round_: int, tag: int, data: bytes) -> None:
        """Keep what is remembered of a client since an update folded into a round, and its tag."""
        row = (client, round_, tag, len(data))
        at = self._db.execute("INSERT OR REPLACE INTO memories VALUES (?, ?, ?, zeroblob(?))", row).lastrowid or 0
        with self._db.blobopen("memories", "data", at) as blob:
            blob.write(data)

    def memory_tag(self, client: str) -> int:
        """The tag of what is remembered of a client; 0 if nothing is."""
        row = self._db.execute(
            "SELECT tag FROM memories WHERE client = ? ORDER BY round DESC LIMIT 1", (client,)
        ).fetchone()
        return int(row[0]) if row else 0

    def memory(self, client: str, before: int | None = None) -> bytes | None:
        """What is remembered of a client, or was before a round; None if nothing is."""
        row = self._db.execute(
            "SELECT data FROM memories WHERE client = ?1 AND (?2 IS NULL OR round < ?2) ORDER BY round DESC LIMIT 1",
            (client, before),
        ).fetchone()
        return bytes(row[0]) if row else None

    def settle_memories(self) -> None:
        """Keep only what is remembered last of each client."""
        self._db.execute(
            "DELETE FROM memories WHERE round < (SELECT MAX(round) FROM memories AS m WHERE m.client = memories.client)"
        )

    # -- models ---------------------------------------------------------------------------------------------------

    def add_version(self, number: int, link: Link, payload: bytes, keep: int) -> None:
        """Keep a version's payload, and forget those of versions ``keep`` or more before it."""
        row = (number, link.codec, link.full, link.base_hash, link.hash, len(payload))
        self._db.execute("DELETE FROM versions WHERE number <= ?", (number - keep,))
        self._db.execute("INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, zeroblob(?))", row)
        with self._db.blobopen("versions", "payload", number) as blob:
            blob.write(payload)

    def versions(self) -> list[tuple[int, Link, bytes]]:
        """The versions kept, oldest first."""
        rows = self._db.execute("SELECT number, codec, full, base, hash, payload FROM versions ORDER BY number")
        return [(n, Link(codec, bool(full), base, new, len(data)), data) for n, codec, full, base, new, data in rows]

    def add_hash(self, number: int, content_hash: str, keep: int) -> None:
        """Keep a version's name, and forget those of versions ``keep`` or more before it."""
        self._db.execute("DELETE FROM hashes WHERE number <= ?", (number - keep,))
        self._db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?)", (number, content_hash))

    def hashes(self) -> dict[int, str]:
        """The names of the versions that updates may build on, by number."""
        return dict(self._db.execute("SELECT number, hash FROM hashes ORDER BY number"))

    def set_tensors(self, what: str, tensors: Tensors) -> None:
        """Keep the latest tensors called ``what``: the exact model, the one devices see, the strategy's state."""
        self._db.execute("DELETE FROM tensors WHERE what = ?", (what,))
        for name, array in tensors.items():
            row = (what, name, array.dtype.str, json.dumps(array.shape), array.nbytes)
            at = self._db.execute("INSERT INTO tensors VALUES (?, ?, ?, ?, zeroblob(?))", row).lastrowid or 0
            with self._db.blobopen("tensors", "data", at) as blob:
                blob.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def tensors(self, what: str, spec: Spec | None = None) -> dict[str, Array] | None:
        """The tensors kept as ``what``, None if there are none but should be; in the spec's order if one is given."""
        rows = self._db.execute("SELECT name, dtype, shape, data FROM tensors WHERE what = ? ORDER BY rowid", (what,))
        found = {name: np.frombuffer(data, dtype).reshape(json.loads(shape)) for name, dtype, shape, data in rows}
        if not found and (spec is None or len(spec)):
            return None
        return found if spec is None else ordered(found, spec)

    # -- rounds and releases --------------------------------------------------------------------------------------

    def set_round(self, round_: int, record: Mapping[str, Any]) -> None:
        """Keep a round's record."""
        self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (round_, json.dumps(record)))

    def round(self, round_: int) -> dict[str, Any]:
        """One round's record. Raises StoreError if there is none."""
        row = self._db.execute("SELECT record FROM rounds WHERE round = ?", (round_,)).fetchone()
        if row is None:
            raise StoreError(f"Expected a record of round {round_} in the run's store, found none.")
        return dict(json.loads(row[0]))

    def rounds(self) -> list[dict[str, Any]]:
        """All records, in order."""
        return [json.loads(row[0]) for row in self._db.execute("SELECT record FROM rounds ORDER BY round")]

    def set_release(self, release: Release) -> None:
        """Keep a shipped model for its device class, in place of the one before."""
        self._db.execute(
            "INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?)",
            (release.device_class, release.hash, release.format, json.dumps(release.metrics), release.data),
        )

    def releases(self) -> list[Release]:
        """All shipped models."""
        rows = self._db.execute("SELECT device_class, hash, format, metrics, data FROM releases")
        return [Release(c, h, f, json.loads(m), d) for c, h, f, m, d in rows]


def _lease(row: Any) -> Lease:
    return Lease(row[0], row[1], row[2], bool(row[3]), Fate(row[4]), bool(row[5]))
