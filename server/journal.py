"""What a run leaves for people: ``plan.toml``, ``rounds.jsonl`` and checkpoints as safetensors.

The store is the truth and the journal its copy: on resuming, ``rounds.jsonl`` is written anew from the store.
Checkpoints: ``checkpoints/last.safetensors`` and ``best.safetensors`` (by ``stop.metric``), and one per
``run.checkpoint_every`` rounds. One of a whole model is all of its state: a strict ``load_state_dict`` takes it. Files
are replaced, never half written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fedpress.params import Tensors, to_bytes
from fedpress.plan import Plan, to_toml
from fedpress.server.store import Store

#: The best model's checkpoint, in a run's directory.
BEST_FILE: Final = "checkpoints/best.safetensors"
#: The last model's.
LAST_FILE: Final = "checkpoints/last.safetensors"


class Journal:
    """Writes into one run's directory. ``unsent``: state that is the same after every round, to be in checkpoints."""

    def __init__(self, plan: Plan, store: Store, unsent: Tensors = MappingProxyType({})) -> None:
        self._unsent = unsent
        self._dir = plan.directory
        self._every = plan.run.checkpoint_every
        self._last = plan.run.rounds
        (self._dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        replace(self._dir / "plan.toml", to_toml(plan).encode())
        done = [record for record in store.rounds() if "metrics" in record]
        self._log = self._dir / "rounds.jsonl"
        replace(self._log, "".join(json.dumps(record) + "\n" for record in done).encode())

    def write(self, record: Mapping[str, Any], model: Tensors) -> None:
        """A round is closed: its line, and checkpoints where they are due."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        round_ = int(record["round"])
        metadata = {"round": str(round_)}
        if self._every and round_ and round_ % self._every == 0:
            self._checkpoint(f"round-{round_:05d}", model, metadata)
        if round_ == self._last:
            self._checkpoint("last", model, metadata)

    def best(self, round_: int, model: Tensors) -> None:
        """The model after a round is the best so far."""
        self._checkpoint("best", model, {"round": str(round_)})

    def ended(self, round_: int, model: Tensors) -> None:
        """The run is over, perhaps before its last round."""
        if round_ < self._last:
            self._checkpoint("last", model, {"round": str(round_)})

    def _checkpoint(self, name: str, model: Tensors, metadata: Mapping[str, str]) -> None:
        data = to_bytes({**model, **self._unsent}, metadata)
        replace(self._dir / "checkpoints" / f"{name}.safetensors", data)


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    os.replace(fresh, path)
