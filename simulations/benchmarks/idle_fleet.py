"""A real server and real client processes that do not train: what is left of a round is the framework's own."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.plan import Plan, load
from fedpress.server import events
from fedpress.server.service import Service
from fedpress.simulations.host import Host
from fedpress.simulations.records import RoundRecord

TASK = "idle"


def run(
    clients: int,
    parameters: int,
    rounds: int,
    overrides: list[str],
    listen: events.Listener = lambda _: None,
    beside: Callable[[Service], None] = lambda _: None,
) -> list[RoundRecord]:
    """The records of ``rounds`` rounds with so many client processes, on a model of ``parameters`` parameters.

    ``beside`` is called once with the service, before any client starts.
    """
    place = Path(tempfile.mkdtemp(prefix="fedpress-bench-"))
    plan = load(
        None,
        [
            f"run.out={place}",
            f"run.rounds={rounds}",
            "run.checkpoint_every=0",
            f"task.name={TASK}",
            f"clients.count={clients}",
            "train.trainer=idle",
            "evaluate.server_every=0",
            "evaluate.clients_every=0",
            *overrides,
        ],
    )
    try:
        with Host(plan, IdleTrainer.of_size(parameters).initial(0), listen) as host:

            async def fleet(service: Service) -> None:
                beside(service)
                processes = _start(clients, parameters, f"127.0.0.1:{service.port}", place)
                while any(p.is_alive() for p in processes):
                    await asyncio.sleep(0.1)

            asyncio.run(host.serve(None, fleet))
            return [r for r in host.rounds() if r.updates]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def work(name: str, parameters: int, address: str, vault: Path) -> None:
    """One client process."""
    with Vault(vault) as kept:
        Device(GrpcLink(address), kept, IdleTrainer.of_size(parameters), name, TASK).run()


def _start(clients: int, parameters: int, address: str, place: Path) -> list[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes: list[BaseProcess] = []
    for i in range(clients):
        name = f"client-{i:03d}"
        processes.append(context.Process(target=work, args=(name, parameters, address, place / name)))
        processes[-1].start()
    return processes


def plan_of(overrides: list[str]) -> Plan:
    """The plan that ``run`` would use, without a place."""
    return load(None, [f"task.name={TASK}", "train.trainer=idle", *overrides])
