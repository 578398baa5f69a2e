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
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from fedpress.errors import FedpressError
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.federation import Federation
from fedpress.server.service import Service
from fedpress.simulations import distortion
from fedpress.simulations.availability import Availability
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
    evaluate, names, there = problem.evaluator(), problem.names, problem.availability
    with Host(plan, problem.initial, listen, resume=resume, here=there.here if there else None) as host:

        async def clients(service: Service) -> None:
            began = time.monotonic() - host.federation.elapsed
            fleet = _start(plan, names, f"127.0.0.1:{service.port}", began)
            try:
                await _watch(fleet, listen, partial(_missing, there, host.federation))
                if not service.federation.finished:
                    raise FedpressError(f"Every client process died; their logs are in {plan.directory / 'clients'}.")
            finally:
                await _end(fleet)

        asyncio.run(host.serve(evaluate, clients))
        return host.result("processes", baseline)


def work(plan: Plan, shard: int, name: str, address: str, log: Path, began: float) -> None:
    """One client's whole life, in its own process. ``began``: when the run did, by this machine's monotonic clock.

    A client that comes and goes by rounds cannot know the round: it goes on asking, and the server holds the call.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with log.open("a", buffering=1, encoding="utf-8") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
        vault = plan.directory / "clients" / name
        probe = distortion.last_round(plan, vault)
        problem = warm.problem_of(plan)
        there = problem.availability

        def away() -> float:
            return there.away(name, 0, time.monotonic() - began) if there and not there.in_rounds else 0.0

        join(problem, address, vault, name=name, shard=shard, insecure=True, probe=probe, away=away)


def _start(plan: Plan, names: list[str], address: str, began: float) -> dict[str, BaseProcess]:
    os.environ.setdefault("OMP_NUM_THREADS", str(plan.engine.threads))
    context = multiprocessing.get_context("forkserver")
    os.environ[warm.WARM] = str(plan.directory / "plan.toml")
    context.set_forkserver_preload([warm.__name__])
    logs = plan.directory / "clients"
    logs.mkdir(parents=True, exist_ok=True)
    fleet: dict[str, BaseProcess] = {}
    for shard, name in enumerate(names):
        log = logs / f"{name}.log"
        process = context.Process(target=work, args=(plan, shard, name, address, log, began), name=name)
        process.start()
        fleet[name] = process
    return fleet


def _missing(there: Availability | None, federation: Federation, name: str) -> bool:
    """The run is over, and a client sleeps until it would have been there again."""
    if there is None or there.in_rounds or not federation.finished:
        return False
    return not there.here(name, federation.round, federation.elapsed)


async def _watch(fleet: dict[str, BaseProcess], listen: events.Listener, missing: Callable[[str], bool]) -> None:
    """Until all have ended, but for the missing; says which ended badly."""
    alive = dict(fleet)
    while not all(map(missing, alive)):
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
