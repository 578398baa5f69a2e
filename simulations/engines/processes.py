"""The processes engine: a real server and real client processes over gRPC on loopback.

The server runs in this process. Clients are forked from one warm process that has imported torch once (a fork
server), so that ten of them start in a second and share those pages; each has its own vault, its own data and its own
socket. A client that dies is reported, and the run goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from fedpress.errors import FedpressError
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.service import Service
from fedpress.simulations import distortion
from fedpress.simulations.engines import warm
from fedpress.simulations.host import Host
from fedpress.simulations.join import join
from fedpress.simulations.problem import Problem
from fedpress.simulations.results import Result, Summary

_WATCH_S: Final = 0.5
_GRACE_S: Final = 5.0


def processes(problem: Problem, listen: events.Listener, resume: bool, baseline: Summary | None) -> Result:
    """Run the problem with one process per client."""
    plan = problem.plan
    plan = plan.model_copy(update={"server": plan.server.model_copy(update={"host": "127.0.0.1", "insecure": True})})
    evaluate, names = problem.evaluator(), problem.names
    with Host(plan, problem.initial, listen, resume=resume) as host:

        async def clients(service: Service) -> None:
            fleet = _start(plan, names, f"127.0.0.1:{service.port}")
            try:
                await _watch(fleet, listen)
                if not service.federation.finished:
                    raise FedpressError(f"Every client process died; their logs are in {plan.directory / 'clients'}.")
            finally:
                await _end(fleet)

        asyncio.run(host.serve(evaluate, clients))
        return host.result("processes", baseline)


def work(plan: Plan, shard: int, name: str, address: str, log: Path) -> None:
    """One client's whole life, in its own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with log.open("a", buffering=1, encoding="utf-8") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
        vault = plan.directory / "clients" / name
        probe = distortion.last_round(plan.run.rounds, vault)
        join(warm.problem_of(plan), address, vault, name=name, shard=shard, insecure=True, probe=probe)


def _start(plan: Plan, names: list[str], address: str) -> dict[str, BaseProcess]:
    os.environ.setdefault("OMP_NUM_THREADS", str(plan.engine.threads))
    context = multiprocessing.get_context("forkserver")
    os.environ[warm.WARM] = str(plan.directory / "plan.toml")
    context.set_forkserver_preload([warm.__name__])
    logs = plan.directory / "clients"
    logs.mkdir(parents=True, exist_ok=True)
    fleet: dict[str, BaseProcess] = {}
    for shard, name in enumerate(names):
        process = context.Process(target=work, args=(plan, shard, name, address, logs / f"{name}.log"), name=name)
        process.start()
        fleet[name] = process
    return fleet


async def _watch(fleet: dict[str, BaseProcess], listen: events.Listener) -> None:
    """Until all have ended; says which ended badly."""
    alive = dict(fleet)
    while alive:
        for name, process in list(alive.items()):
            if not process.is_alive():
                del alive[name]
                if process.exitcode:
                    listen(events.Noted(f"{name} died with exit code {process.exitcode}; see clients/{name}.log"))
        await asyncio.sleep(_WATCH_S if alive else 0)


async def _end(fleet: dict[str, BaseProcess]) -> None:
    """Clients that heard that the run is finished go by themselves; the rest are asked to, then made to."""
    for process in fleet.values():
        if process.is_alive():
            process.terminate()
    for process in fleet.values():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.to_thread(process.join, _GRACE_S)
        if process.is_alive():
            process.kill()
