"""Payload bytes per client since they were last taken: counted where they leave and arrive. Safe from any thread."""

from __future__ import annotations

import threading
from collections import Counter

from fedpress.server.store import Traffic


class Meter:
    """Three counters per client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._up: Counter[str] = Counter()
        self._down: Counter[str] = Counter()
        self._models: Counter[str] = Counter()

    def up(self, client: str, count: int) -> None:
        """``count`` payload bytes arrived."""
        with self._lock:
            self._up[client] += count

    def down(self, client: str, count: int) -> None:
        """``count`` payload bytes left."""
        with self._lock:
            self._down[client] += count

    def model(self, client: str) -> None:
        """A client was sent for a model version it did not hold."""
        with self._lock:
            self._models[client] += 1

    def take(self, client: str) -> Traffic:
        """What was counted for the client since the last call."""
        with self._lock:
            return Traffic(self._up.pop(client, 0), self._down.pop(client, 0), self._models.pop(client, 0))
