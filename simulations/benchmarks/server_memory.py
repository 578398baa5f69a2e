"""What a round of many uploads costs the server in memory: ``python -m fedpress.simulations.benchmarks.server_memory``.

The server runs in a process of its own, its clients are real processes over loopback gRPC that do not train. All wait
at a barrier with their update ready, so that the server has nothing to do (idle), and then push at once. The peak is
the kernel's own high-water mark of the server's resident memory since then (``VmHWM``, reset through ``clear_refs``;
Linux only), at the last acknowledgement and once the round is committed, in models above idle. The first round is for
warming up. ``fresh`` is the server with its model loaded before the first client came: what it keeps from round to
round is the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.errors import FedpressError
from fedpress.params import Model
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import events
from fedpress.server.service import Service
from fedpress.simulations.benchmarks import idle_fleet
from fedpress.simulations.host import Host
from fedpress.simulations.units import size

ARMS: Final = {
    "fp32 both ways": ["upload.codec=raw", "download.codec=raw", "download.mode=full"],
    "fp32 up, int8 down": ["upload.codec=raw", "download.codec=int8"],
    "ef+topk:0.01+int8 up, int8 down": ["upload.codec=ef+topk:0.01+int8", "download.codec=int8"],
}
_SETTLE_S: Final = 1.0
_PATIENCE_S: Final = 300.0


class Round(NamedTuple):
    """The server's resident memory in one round, in bytes: idle, and its peaks since then."""

    idle: int
    pushed: int
    closed: int


class GatedLink(GrpcLink):
    """Pushes when all others do."""

    def __init__(self, address: str, gate: Barrier) -> None:
        super().__init__(address)
        self._gate = gate

    def push(self, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        """Wait for the gate, then push."""
        self._gate.wait(_PATIENCE_S)
        return super().push(header, payload)


def serve(plan: Plan, parameters: int, tell: Connection) -> None:
    """The server's process: tells its port, then the name of every event."""

    async def ready(service: Service) -> None:
        tell.send(service.port)

    def hear(event: events.Event) -> None:
        tell.send(type(event).__name__)

    with Host(plan, Model.of(IdleTrainer.of_size(parameters).initial(0)), hear) as host:
        asyncio.run(host.serve(None, ready))


def work(name: str, parameters: int, address: str, vault: Path, gate: Barrier) -> None:
    """One client's process."""
    with Vault(vault, durable=False) as kept:
        Device(GatedLink(address, gate), kept, IdleTrainer.of_size(parameters), name, idle_fleet.TASK).run()


def measure(clients: int, parameters: int, rounds: int, overrides: list[str]) -> tuple[int, list[Round]]:
    """Bytes of the fresh server, and the rounds after the first."""
    place = Path(tempfile.mkdtemp(prefix="fedpress-bench-"))
    settings = [f"run.out={place}", f"run.rounds={rounds + 1}", "run.checkpoint_every=0", f"clients.count={clients}"]
    plan = idle_fleet.plan_of([*settings, "evaluate.server_every=0", "evaluate.clients_every=0", *overrides])
    spawn, fork = multiprocessing.get_context("spawn"), multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload([__name__])
    told, tell = spawn.Pipe(duplex=False)
    gate = fork.Barrier(clients + 1)
    server = spawn.Process(target=serve, args=(plan, parameters, tell))
    processes: list[BaseProcess] = [server]
    try:
        server.start()
        while not isinstance(port := _next(told), int):
            pass
        time.sleep(_SETTLE_S)
        fresh = _memory(server, "VmRSS")
        for i in range(clients):
            name = f"client-{i:03d}"
            arguments = (name, parameters, f"127.0.0.1:{port}", place / name, gate)
            processes.append(fork.Process(target=work, args=arguments))
            processes[-1].start()
        measured = [_round(server, processes, told, gate) for _ in range(rounds + 1)]
        for process in processes:
            process.join(_PATIENCE_S)
        return fresh, measured[1:]
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(place, ignore_errors=True)


def _round(server: BaseProcess, processes: list[BaseProcess], told: Connection, gate: Barrier) -> Round:
    """Let all push at once; returns when the round is committed."""
    until = time.monotonic() + _PATIENCE_S
    while gate.n_waiting < gate.parties - 1:
        if time.monotonic() > until or not all(process.is_alive() for process in processes):
            raise FedpressError("A process ended early, or hangs: see its messages above.")
        time.sleep(0.05)
    time.sleep(_SETTLE_S)
    idle = _memory(server, "VmRSS")
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # proc(5): resets the high-water mark
    gate.wait(_PATIENCE_S)
    for _ in range(gate.parties - 1):
        _wait(told, events.UpdateCounted)
    pushed = _memory(server, "VmHWM")
    _wait(told, events.RoundClosed)
    return Round(idle, pushed, _memory(server, "VmHWM"))


def _wait(told: Connection, kind: type) -> None:
    while (name := _next(told)) != kind.__name__:
        if name == events.ClientFailed.__name__:
            raise FedpressError("The server refused an update.")


def _next(told: Connection) -> object:
    if not told.poll(_PATIENCE_S):
        raise FedpressError(f"Expected to hear from the server within {_PATIENCE_S:.0f} s.")
    return told.recv()


def _memory(process: BaseProcess, field: str) -> int:
    """Bytes, from /proc/PID/status."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _rows(name: str, fresh: int, rounds: list[Round], model: int) -> Iterator[tuple[str, ...]]:
    for number, (idle, pushed, closed) in enumerate(rounds, 2):
        peaks = [f"{(peak - low) / model:.2f}" for peak, low in ((pushed, idle), (closed, idle), (closed, fresh))]
        yield name, str(number), size(fresh), size(idle), size(closed), *peaks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--parameters", type=int, default=1_700_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    model = 4 * options.parameters
    table = Table(
        "codecs", "round", "fresh", "idle", "peak", "pushed - idle", "closed - idle", "closed - fresh",
        caption=f"The last three columns in models of {size(model)}.",
    )  # fmt: skip
    for name in options.arms:
        for row in _rows(name, *measure(options.clients, options.parameters, options.rounds, ARMS[name]), model):
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
