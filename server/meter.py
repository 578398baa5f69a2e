"""Bytes, counted where they leave and arrive. Safe from any thread.

Payload bytes per client, since they were last taken; and bytes of whole messages with their envelopes, for the run.
"""

from __future__ import annotations

import threading
from collections import Counter

from fedpress.server.store import Traffic


class Meter:
    """Three counters per client, and two of messages, which go on from ``wire`` (up, down)."""

    def __init__(self, wire: tuple[int, int] = (0, 0)) -> None:
        self._lock = threading.Lock()
        self._wire = list(wire)
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

    def message(self, up: int = 0, down: int = 0) -> None:
        """A message arrived or left, or a call's head arrived."""
        with self._lock:
            self._wire[0] += up
            self._wire[1] += down

    @property
    def wire(self) -> tuple[int, int]:
        """Bytes of all messages, up and down."""
        with self._lock:
            return self._wire[0], self._wire[1]

    def take(self, client: str) -> Traffic:
        """What was counted for the client since the last call."""
        with self._lock:
            return Traffic(self._up.pop(client, 0), self._down.pop(client, 0), self._models.pop(client, 0))
