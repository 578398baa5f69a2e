"""A client's whole life: enrol, work, until the run is over. What ``fedpress client`` and client processes run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fedpress.client.device import Device, Note
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.probe import Probe
from fedpress.client.vault import Vault
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.problem import Problem


def join(
    problem: Problem,
    address: str,
    vault: Path,
    *,
    name: str,
    shard: int | None = None,
    ca: Path | None = None,
    insecure: bool = False,
    device_class: str = "any",
    listen: Callable[[Note], object] | None = None,
    probe: Probe | None = None,
    condition: Callable[[], pb.Condition] = pb.Condition,
    away: Callable[[], float] = lambda: 0.0,
) -> str:
    """Take part in the run at ``address``; returns why it ended.

    ``problem`` gives the task, the trainer and, with ``shard``, the part of the plan's simulated split that is this
    client's own; without, the device's data is all that the task gives. ``ca``: the server's certificate, PEM.
    ``condition`` and ``away`` as for ``Device``. Raises FedpressError.
    """
    with Vault(vault) as kept:
        link = GrpcLink(address, ca, insecure)
        try:
            trainer = problem.local_trainer() if shard is None else problem.trainer(shard)
            listener = listen or _print
            device = Device(
                link,
                kept,
                trainer,
                name,
                problem.task.name,
                device_class,
                listener=listener,
                probe=probe,
                condition=condition,
                away=away,
            )
            return device.run()
        finally:
            link.close()


def _print(note: Note) -> None:
    """One line of a log."""
    where = f"round {note.round}: " if note.round else ""
    print(f"{time.strftime('%H:%M:%S')} {where}{note.kind}: {note.text}", flush=True)  # noqa: T201 - a log is printed
