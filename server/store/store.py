"""The run's own store: its leases, rounds and tensors; the tables beside them are its attributes.

An update is durable before it is acknowledged, and a round is committed in one transaction, so that after ``kill -9``
at any instant the server resumes the same round from this one file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedpress.errors import StoreError
from fedpress.params import Array, Spec, Tensors, ordered
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease
from fedpress.server.store.clients import ClientTable
from fedpress.server.store.database import Database
from fedpress.server.store.memories import MemoryTable
from fedpress.server.store.payloads import PayloadTable
from fedpress.server.store.releases import ReleaseTable
from fedpress.server.store.versions import VersionTable

#: A lease's columns, for ``_lease``.
_LEASE: Final = "id, client, round, evaluate, fate, handed"


@dataclass(frozen=True)
class Traffic:
    """What one lease cost so far: payload bytes each way, and models downloaded (for the uncompressed comparison)."""

    bytes_up: int
    bytes_down: int
    models_down: int


class Store(Database):
    """One run's database. ``durable`` False leaves out fsync: for simulations, where a power cut costs nothing."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        super().__init__(path, durable)
        self.clients = ClientTable(self)
        self.payloads = PayloadTable(self)
        self.memories = MemoryTable(self)
        self.versions = VersionTable(self)
        self.releases = ReleaseTable(self)

    # -- leases ---------------------------------------------------------------------------------------------------

    def add_leases(self, leases: Iterable[Lease], choices: Mapping[str, Choice]) -> None:
        """Keep new leases, and how the update of each is coded."""
        self.executemany(
            "INSERT INTO leases (id, client, round, evaluate, fate, codec, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(v.id, v.client, v.round, v.evaluate, v.fate.value, *choices[v.id]) for v in leases],
        )

    def hand_out(self, ticket: str) -> None:
        """A lease's client was told of it."""
        self.execute("UPDATE leases SET handed = 1 WHERE id = ?", (ticket,))

    def move_lease(self, lease: Lease, choice: Choice) -> None:
        """A lease that was not handed out yet is of a later round now."""
        self.execute(
            "UPDATE leases SET round = ?, codec = ?, reason = ? WHERE id = ?", (lease.round, *choice, lease.id)
        )

    def choices(self, round_: int) -> dict[str, Choice]:
        """How the updates of leases that are open, or ended in a round, are coded, by ticket."""
        rows = self.execute("SELECT id, codec, reason FROM leases WHERE ended IN (0, ?)", (round_,))
        return {ticket: Choice(codec, reason) for ticket, codec, reason in rows}

    def lease(self, ticket: str) -> Lease | None:
        """A lease of any round."""
        row = self.execute(f"SELECT {_LEASE} FROM leases WHERE id = ?", (ticket,)).fetchone()
        return None if row is None else _lease(row)

    def leases(self, round_: int, evaluate: bool) -> list[Lease]:
        """The leases that are open, or ended in one round."""
        query = f"SELECT {_LEASE} FROM leases WHERE ended IN (0, ?) AND evaluate = ?"
        return [_lease(row) for row in self.execute(query, (round_, evaluate))]

    def end_lease(
        self, ticket: str, round_: int, fate: Fate, traffic: Traffic, report: bytes = b"", memory: int = 0
    ) -> None:
        """How a lease ended, in which round, and what it cost. ``memory``: the tag its update was coded against."""
        self.execute(
            "UPDATE leases SET ended = ?1, place = (SELECT COALESCE(MAX(place), 0) + 1 FROM leases WHERE ended = ?1), "
            "fate = ?2, bytes_up = ?3, bytes_down = ?4, models_down = ?5, report = ?6, memory = ?7 WHERE id = ?8",
            (round_, fate.value, traffic.bytes_up, traffic.bytes_down, traffic.models_down, report, memory, ticket),
        )

    def expire(self, round_: int) -> None:
        """All open leases are stale: they ended in this round."""
        self.execute("UPDATE leases SET fate = 'stale', ended = ? WHERE ended = 0", (round_,))

    def give_up(self, round_: int) -> None:
        """What was counted into a round does not count: it is never to be folded."""
        updates = "SELECT id FROM leases WHERE ended = ? AND fate = 'counted' AND evaluate = 0"
        self.execute(f"DELETE FROM chunks WHERE ticket IN ({updates})", (round_,))
        self.execute(f"UPDATE leases SET fate = 'stale' WHERE id IN ({updates})", (round_,))

    def counted(self, round_: int) -> list[tuple[Lease, bytes, int]]:
        """The updates folded into a round, in that order: lease, serialised report, tag of its codec's memory."""
        rows = self.execute(
            f"SELECT {_LEASE}, report, memory FROM leases WHERE ended = ? AND fate = ? AND evaluate = 0 ORDER BY place",
            (round_, Fate.COUNTED.value),
        )
        return [(_lease(r), r[6], r[7]) for r in rows]

    def reports(self, round_: int, evaluate: bool) -> list[tuple[Lease, str, Traffic, bytes]]:
        """Every lease that ended in a round with its client's name, traffic and serialised report."""
        rows = self.execute(
            f"SELECT {_LEASE}, name, bytes_up, bytes_down, models_down, report FROM leases "
            "JOIN (SELECT id AS owner, name FROM clients) ON owner = client "
            "WHERE ended = ? AND evaluate = ? ORDER BY name, place",
            (round_, evaluate),
        )
        return [(_lease(r), r[6], Traffic(r[7], r[8], r[9]), r[10]) for r in rows]

    def history(self) -> Iterator[tuple[Lease, Traffic, bytes, float]]:
        """Every lease of training, as they ended: its traffic, its report, and the seconds of the round in which it did
        (0: not over)."""
        rows = self.execute(
            "SELECT id, client, l.round, evaluate, fate, handed, bytes_up, bytes_down, models_down, report, "
            "COALESCE(json_extract(record, '$.seconds'), 0.0) FROM leases l LEFT JOIN rounds r ON r.round = l.ended "
            "WHERE evaluate = 0 ORDER BY ended = 0, ended, place, l.round"
        )
        for row in rows:
            yield _lease(row[:6]), Traffic(*row[6:9]), row[9], row[10]

    # -- rounds and tensors ---------------------------------------------------------------------------------------

    def set_round(self, round_: int, record: Mapping[str, Any]) -> None:
        """Keep a round's record."""
        self.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (round_, json.dumps(record)))

    def round(self, round_: int) -> dict[str, Any]:
        """One round's record. Raises StoreError if there is none."""
        row = self.execute("SELECT record FROM rounds WHERE round = ?", (round_,)).fetchone()
        if row is None:
            raise StoreError(f"Expected a record of round {round_} in the run's store, found none.")
        return dict(json.loads(row[0]))

    def rounds(self) -> list[dict[str, Any]]:
        """All records, in order."""
        return [json.loads(row[0]) for row in self.execute("SELECT record FROM rounds ORDER BY round")]

    def set_tensors(self, what: str, tensors: Tensors) -> None:
        """Keep the latest tensors called ``what``: the exact model, the one devices see, the strategy's state."""
        self.execute("DELETE FROM tensors WHERE what = ?", (what,))
        for name, array in tensors.items():
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            self.put("tensors", (what, name, array.dtype.str, json.dumps(array.shape)), "data", data)

    def tensors(self, what: str, spec: Spec | None = None) -> dict[str, Array] | None:
        """The tensors kept as ``what``, None if there are none but should be; in the spec's order if one is given."""
        rows = self.execute("SELECT name, dtype, shape, data FROM tensors WHERE what = ? ORDER BY rowid", (what,))
        found = {name: np.frombuffer(data, dtype).reshape(json.loads(shape)) for name, dtype, shape, data in rows}
        if not found and (spec is None or len(spec)):
            return None
        return found if spec is None else ordered(found, spec)


def _lease(row: Any) -> Lease:
    return Lease(row[0], row[1], row[2], bool(row[3]), Fate(row[4]), bool(row[5]))
