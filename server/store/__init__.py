"""What the server must not lose, in one SQLite file: the database, and a class for each table that stands by itself."""

from __future__ import annotations

from fedpress.server.store.clients import Client
from fedpress.server.store.releases import Release
from fedpress.server.store.store import Store, Traffic

__all__ = ["Client", "Release", "Store", "Traffic"]
