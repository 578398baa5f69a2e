"""The tables of the model's versions: the payloads that lead from one to the next, and their names for longer."""

from __future__ import annotations

from fedpress.compression.download import Link
from fedpress.server.store.database import Database


class VersionTable:
    """Payloads and content hashes by version number, as many as the plan keeps."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, number: int, link: Link, payload: bytes, keep: int) -> None:
        """Keep a version's payload, and forget those of versions ``keep`` or more before it."""
        self._db.execute("DELETE FROM versions WHERE number <= ?", (number - keep,))
        self._db.put("versions", (number, link.codec, link.full, link.base_hash, link.hash), "payload", payload)

    def all(self) -> list[tuple[int, Link, bytes]]:
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
