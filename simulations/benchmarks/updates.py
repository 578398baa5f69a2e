"""Real updates to measure codecs on: made once by a short run inline, kept in one safetensors file.

Of a few clients, every round's update is kept three times over: the *delta* as training left it; what the codec's last
stages *saw* of it in the loop (with feedback, less the prediction); and the *step* that both ends held when it was
encoded. Rounds are kept from the first one on, so that a codec with a memory can be taken through them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fedpress.client.probe import Encoding
from fedpress.errors import DataError, SpecError
from fedpress.params import Array, Spec, Tensors, flatten, from_bytes, to_bytes, unflatten, zeros
from fedpress.plan import load
from fedpress.server import events
from fedpress.simulations.benchmarks.settings import QUIET, SETTINGS
from fedpress.simulations.engines.inline import inline
from fedpress.simulations.problem import Problem
from fedpress.simulations.tap import passed

#: The run that makes the updates: ten clients, all of them in every round, and the loop that is looked into.
LOOP: Final = (
    "clients.count=10",
    "cohort.fraction=1",
    "upload.codec=ef:0.9+predict:0.5+nmse:0.4",
    "download.codec=nmse:0.4,ladder=true",
    "evaluate.server_every=0",
)


@dataclass(frozen=True)
class Update:
    """One client's update of one round. ``seed``: of the context. ``step``: None where the device knew none."""

    client: str
    round: int
    seed: int
    delta: Tensors
    seen: Tensors
    step: Tensors | None


@dataclass(frozen=True)
class Updates:
    """All that was recorded of a task, by client and then by round. ``codec``: the loop's."""

    task: str
    codec: str
    spec: Spec
    rows: Sequence[Update]


def recorded(
    out: Path, task: str, rounds: int, clients: int, listen: events.Listener = lambda _: None, *, fresh: bool = False
) -> Updates:
    """The updates of ``clients`` clients in rounds 1 to ``rounds`` of ``task``; made first where they are not in
    ``out``, or if ``fresh``. Raises FedpressError."""
    path = out / f"{Path(task).stem}-{rounds}x{clients}.safetensors"
    if fresh or not path.exists():
        data = _packed(_record(out, task, rounds, clients, listen))
        path.write_bytes(data)
    try:
        return _unpacked(path.read_bytes())
    except (SpecError, KeyError, ValueError) as error:
        raise DataError(f"Expected recorded updates in '{path}': {error}. Delete it to record anew.") from error


def _record(out: Path, task: str, rounds: int, clients: int, listen: events.Listener) -> Updates:
    settings = (*QUIET, *SETTINGS.get(task, ()), *LOOP, f"run.rounds={rounds}")
    plan = load(None, [f'task.name="{task}"', f'run.out="{out}"', "run.name=recording", *settings])
    problem = Problem(plan)
    problem.check()
    taken: dict[str, list[Update]] = {name: [] for name in sorted(problem.names)[:clients]}

    def keep(client: str, encoding: Encoding) -> None:
        if client in taken:
            context = encoding.context
            seen = passed(encoding).seen
            taken[client].append(Update(client, context.round, context.seed, encoding.delta, seen, context.step))

    shutil.rmtree(plan.directory, ignore_errors=True)
    inline(problem, listen, False, None, lambda name: partial(keep, name))
    shutil.rmtree(plan.directory)
    rows = [update for updates in taken.values() for update in updates]
    return Updates(problem.task.name, plan.upload.codec, Spec.of(rows[0].delta), rows)


def _packed(updates: Updates) -> bytes:
    """Three matrices of a row per update, and what they are."""
    nothing = zeros(updates.spec)
    rows = [[u.client, u.round, u.seed, u.step is not None] for u in updates.rows]
    about = {"task": updates.task, "codec": updates.codec, "spec": updates.spec.to_json(), "rows": rows}
    parts: dict[str, Array] = {
        "delta": np.stack([flatten(u.delta) for u in updates.rows]),
        "seen": np.stack([flatten(u.seen) for u in updates.rows]),
        "step": np.stack([flatten(u.step or nothing) for u in updates.rows]),
    }
    return to_bytes({"about": np.frombuffer(json.dumps(about).encode(), np.uint8), **parts})


def _unpacked(data: bytes) -> Updates:
    parts = from_bytes(data)
    about = json.loads(parts["about"].tobytes())
    spec = Spec.from_json(about["spec"])
    rows = []
    for i, (client, number, seed, known) in enumerate(about["rows"]):
        delta, seen, step = (unflatten(parts[part][i], spec) for part in ("delta", "seen", "step"))
        rows.append(Update(client, number, seed, delta, seen, step if known else None))
    return Updates(about["task"], about["codec"], spec, rows)
