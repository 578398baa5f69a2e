"""Every strategy through real processes and gRPC with the default compressed codecs, one client killed in mid-round."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fedpress.params import finite, from_bytes
from fedpress.plan import load
from fedpress.server.events import Event, WorkTaken
from fedpress.server.strategies import STRATEGIES
from fedpress.simulations.engines import simulate

#: What a strategy cannot do without.
_HEAD = ('strategy.personal=["head.*"]',)
ASKED: dict[str, tuple[str, ...]] = {
    "fedper": _HEAD,
    "fedrep": (*_HEAD, "strategy.head_epochs=1"),
    "lg-fedavg": ('strategy.personal=["body.0.*"]',),
    "fedbn": ('strategy.personal=["body.0.*"]',),
    "fedbabu": _HEAD,
    "fedbuff": ("cohort.buffer=2", "cohort.concurrency=3"),
    "fedasync": ("cohort.buffer=1", "cohort.concurrency=3"),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_survives_a_killed_client(name: str, tmp_path: Path) -> None:
    plan = load(
        None,
        [
            f"strategy.name={name}", *ASKED.get(name, ()), f"run.out={tmp_path}", "run.rounds=4", "clients.count=3",
            "clients.partition=iid", "train.max_steps=4", "cohort.deadline_s=1", "server.long_poll_s=2",
        ],
    )  # fmt: skip
    victim, killed, when = "client-001", list[int](), 1 if plan.cohort.buffer else 2

    def listen(event: Event) -> None:
        if isinstance(event, WorkTaken) and event.name == victim and event.round >= when and not killed:
            killed.append(holder(plan.directory / "clients" / victim / "lock"))
            os.kill(killed[0], signal.SIGKILL)

    result = simulate(plan, listen)
    assert killed
    trained = [r for r in result.rounds if r.train_loss is not None]
    assert [r.round for r in trained] == [1, 2, 3, 4]
    assert all(r.updates >= 1 for r in trained)
    assert all(r.clients[victim].fate != "counted" for r in trained if r.round > 2 and victim in r.clients)
    assert finite(from_bytes((result.run_dir / "checkpoints" / "last.safetensors").read_bytes()))
    assert result.summary.bytes_up < 0.2 * max(1, result.summary.bytes_up_uncompressed)
    assert result.summary.personal_accuracy is not None
    assert result.summary.stopped is None


def holder(lock: Path) -> int:
    """The process that has a vault's lock open."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and any(os.readlink(fd) == str(lock) for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # a process that has ended, or is another user's
            continue
    raise AssertionError(f"nobody holds {lock}")
