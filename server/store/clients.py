"""The table of enrolled devices."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from fedpress.errors import StoreError
from fedpress.server.store.database import Database


@dataclass(frozen=True)
class Client:
    """One enrolled device. ``key_hash`` is the SHA-256 of its key, hex."""

    id: str
    name: str
    key_hash: str
    device_class: str


class ClientTable:
    """All clients ever enrolled, and what each said last that it can do (a serialised message)."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, client: Client) -> None:
        """Keep a new client. Raises StoreError if the name is taken."""
        try:
            self._db.execute(
                "INSERT INTO clients (id, name, key_hash, device_class) VALUES (?, ?, ?, ?)",
                (client.id, client.name, client.key_hash, client.device_class),
            )
        except sqlite3.IntegrityError as error:
            raise StoreError(f"The name '{client.name}' belongs to another device.") from error

    def all(self) -> list[Client]:
        """Every one."""
        return [Client(*row) for row in self._db.execute("SELECT id, name, key_hash, device_class FROM clients")]

    def set_capabilities(self, client: str, said: bytes) -> None:
        """Keep what a client said last."""
        self._db.execute("UPDATE clients SET capabilities = ? WHERE id = ?", (said, client))

    def capabilities(self) -> dict[str, bytes]:
        """What all clients said last, by client id."""
        return dict(self._db.execute("SELECT id, capabilities FROM clients"))
