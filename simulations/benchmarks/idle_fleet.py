"""A real server and real client processes that do not train: what is left of a round is the framework's own.

Devices are driven action by action, and the calls of the server's federation are wrapped, so that their time is
measured from outside. Everything counts from the second round on: the first waits for processes to start.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from fedpress.client.actions import Commit
from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.errors import FedpressError
from fedpress.params import Model
from fedpress.plan import Plan, load
from fedpress.server import events
from fedpress.server.service import Service
from fedpress.simulations.host import Host
from fedpress.simulations.records import RoundRecord

TASK: Final = "idle"
#: What a federation is asked to do in a round, all of it on its one thread.
_CALLS: Final = ("authenticate", "get_work", "blob", "push", "append", "finish", "advance", "tick")

T = TypeVar("T")


class Measured(NamedTuple):
    """``rounds``: the records. The rest is seconds per round, the first left out: ``device``, of the mean client by
    action; ``server``, of its one thread by call; ``processor``, of all processes together."""

    rounds: list[RoundRecord]
    device: Mapping[str, float]
    server: Mapping[str, float]
    processor: float


class Watch:
    """Adds up seconds by phase, and this process's processor time beside them."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._began = time.process_time()

    def __call__(self, phase: str, call: Callable[..., T], *arguments: object) -> T:
        """``call(*arguments)``, its time added to ``phase``."""
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.seconds[phase] += time.perf_counter() - began

    @property
    def processor(self) -> float:
        """Processor seconds of all threads since the last restart."""
        return time.process_time() - self._began


def run(clients: int, parameters: int, rounds: int, overrides: list[str]) -> Measured:
    """``rounds`` rounds, at least two, with so many client processes, on a model of ``parameters`` parameters."""
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
    watch, processor = Watch(), 0.0

    def hear(event: events.Event) -> None:
        nonlocal processor
        if isinstance(event, events.WorkTaken) and event.round == 2 and event.name == _name(0):
            watch.restart()
        elif isinstance(event, events.RunFinished):
            processor = watch.processor

    try:
        with Host(plan, Model.of(IdleTrainer.of_size(parameters).initial(0)), hear) as host:
            for call in _CALLS:
                setattr(host.federation, call, partial(watch, call, getattr(host.federation, call)))

            async def fleet(service: Service) -> None:
                processes = _start(clients, parameters, f"127.0.0.1:{service.port}", place)
                while any(p.is_alive() for p in processes):
                    await asyncio.sleep(0.1)
                if any(p.exitcode for p in processes):
                    raise FedpressError("A client process failed: what it wrote above says why.")

            asyncio.run(host.serve(None, fleet))
            told = [json.loads((place / f"{_name(i)}.json").read_text()) for i in range(clients)]
            actions = {action for seconds, _ in told for action in seconds}
            return Measured(
                [r for r in host.rounds() if r.updates],
                {a: sum(seconds.get(a, 0.0) for seconds, _ in told) / clients / (rounds - 1) for a in actions},
                {call: watch.seconds[call] / (rounds - 1) for call in _CALLS},
                (processor + sum(used for _, used in told)) / (rounds - 1),
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def work(name: str, parameters: int, address: str, vault: Path) -> None:
    """One client process; leaves what it measured beside its vault."""
    watch, started = Watch(), False
    with Vault(vault) as kept:
        device = Device(GrpcLink(address), kept, IdleTrainer.of_size(parameters), name, TASK)
        while device.stopped is None:
            action = watch(type(device.session.action).__name__, device.step)
            if isinstance(action, Commit) and not started:
                watch.restart()
                started = True
    vault.with_suffix(".json").write_text(json.dumps([watch.seconds, watch.processor]))


def _start(clients: int, parameters: int, address: str, place: Path) -> list[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes: list[BaseProcess] = []
    for i in range(clients):
        processes.append(context.Process(target=work, args=(_name(i), parameters, address, place / _name(i))))
        processes[-1].start()
    return processes


def _name(i: int) -> str:
    return f"client-{i:03d}"


def plan_of(overrides: list[str]) -> Plan:
    """The plan that ``run`` would use, without a place."""
    return load(None, [f"task.name={TASK}", "train.trainer=idle", *overrides])
