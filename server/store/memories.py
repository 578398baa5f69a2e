"""The table of what codecs remember of clients: the state after each update of the open round, and the one before."""

from __future__ import annotations

from fedpress.server.store.database import Database


class MemoryTable:
    """Memories by client and by the round their update was folded into. ``server.memories`` says what they mean."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, client: str, round_: int, tag: int, data: bytes) -> None:
        """Keep what is remembered of a client since an update folded into a round, and its tag."""
        self._db.put("memories", (client, round_, tag), "data", data)

    def tag(self, client: str) -> int:
        """The tag of what is remembered of a client; 0 if nothing is."""
        row = self._db.execute(
            "SELECT tag FROM memories WHERE client = ? ORDER BY round DESC LIMIT 1", (client,)
        ).fetchone()
        return int(row[0]) if row else 0

    def read(self, client: str, before: int | None = None) -> bytes | None:
        """What is remembered of a client, or was before a round; None if nothing is."""
        row = self._db.execute(
            "SELECT data FROM memories WHERE client = ?1 AND (?2 IS NULL OR round < ?2) ORDER BY round DESC LIMIT 1",
            (client, before),
        ).fetchone()
        return bytes(row[0]) if row else None

    def settle(self) -> None:
        """Keep only what is remembered last of each client."""
        self._db.execute(
            "DELETE FROM memories WHERE round < (SELECT MAX(round) FROM memories AS m WHERE m.client = memories.client)"
        )
