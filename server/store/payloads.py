"""The table of updates' payloads, as the stretches they came in.

An upload resumes at the byte where it broke, and reading one back never holds it twice.
"""

from __future__ import annotations

from fedpress.server.store.database import Database


class PayloadTable:
    """Payloads by ticket: of updates on their way in, and of those that the open round has folded."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def append(self, ticket: str, start: int, data: bytes) -> None:
        """Keep a stretch that begins at byte ``start``; durable with the next transaction, not by itself."""
        with self._db.relaxed():
            self._db.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (ticket, start, data))

    def received(self, ticket: str) -> int:
        """Bytes that are here."""
        row = self._db.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM chunks WHERE ticket = ?", (ticket,))
        return int(row.fetchone()[0])

    def read(self, ticket: str) -> bytearray:
        """A payload, put together without holding it twice."""
        whole = bytearray(self.received(ticket))
        for start, data in self._db.execute(
            "SELECT start, data FROM chunks WHERE ticket = ? ORDER BY start", (ticket,)
        ):
            whole[start : start + len(data)] = data
        return whole

    def discard(self, ticket: str) -> None:
        """Forget what arrived."""
        self._db.execute("DELETE FROM chunks WHERE ticket = ?", (ticket,))

    def settle(self) -> None:
        """Forget all but those of open leases: the round they belong to is committed."""
        if self._db.execute("SELECT 1 FROM leases WHERE ended = 0 LIMIT 1").fetchone():
            self._db.execute("DELETE FROM chunks WHERE ticket NOT IN (SELECT id FROM leases WHERE ended = 0)")
        else:  # much faster
            self._db.execute("DELETE FROM chunks")
