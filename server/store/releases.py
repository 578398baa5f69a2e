"""The table of shipped models: one file for each class of device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fedpress.server.store.database import Database


@dataclass(frozen=True)
class Release:
    """A shipped model file."""

    device_class: str
    hash: str
    format: str
    metrics: Mapping[str, float]
    data: bytes


class ReleaseTable:
    """The latest release for each device class."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, release: Release) -> None:
        """Keep a shipped model for its device class, in place of the one before."""
        self._db.execute(
            "INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?)",
            (release.device_class, release.hash, release.format, json.dumps(release.metrics), release.data),
        )

    def all(self) -> list[Release]:
        """All shipped models."""
        rows = self._db.execute("SELECT device_class, hash, format, metrics, data FROM releases")
        return [Release(c, h, f, json.loads(m), d) for c, h, f, m, d in rows]
