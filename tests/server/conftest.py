"""A real server on loopback with a small model, and devices to call it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.compression import registry
from fedpress.params import Model
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server.events import Event, RoundClosed
from fedpress.server.service import Service
from fedpress.simulations.host import Host


class Over(Exception):
    """The test has seen enough."""


class Fleet:
    """One server in a thread of its own, and what it said."""

    def __init__(self, plan: Plan, trainer: IdleTrainer, resume: bool = False) -> None:
        self.plan, self.trainer = plan, trainer
        self.heard: list[Event] = []
        self.service: Service | None = None
        self._host = Host(plan, Model.of(trainer.initial(plan.run.seed)), self.heard.append, resume=resume)
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Fleet:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def address(self) -> str:
        assert self.service is not None
        return f"127.0.0.1:{self.service.port}"

    @property
    def federation(self) -> Any:
        return self._host.federation

    def device(self, name: str, directory: Path, **more: Any) -> Device:
        vault = Vault(directory / name, durable=False)
        return Device(GrpcLink(self.address), vault, self.trainer, name, self.plan.task.name, **more)

    def closed(self, rounds: int) -> list[Any]:
        """The records of rounds 1 to ``rounds``, once they are written."""
        until = time.monotonic() + 20
        while len(found := [e.record for e in self.events(RoundClosed) if e.record["round"]]) < rounds:
            assert time.monotonic() < until, found
            time.sleep(0.01)
        return found

    def events(self, kind: type) -> list[Any]:
        return [e for e in self.heard if isinstance(e, kind)]

    def _serve(self) -> None:
        async def ready(service: Service) -> None:
            self.service = service
            self._ready.set()
            while not self._over.is_set():
                await asyncio.sleep(0.02)
            if not service.federation.finished:
                raise Over

        with self._host:
            try:
                asyncio.run(self._host.serve(None, ready))
            except Over:
                pass
            finally:
                self._ready.set()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """``fleet("cohort.deadline_s=1", ...)``: a started server of a plan with these overrides, stopped at the end."""
    started: list[Fleet] = []

    def start(*overrides: str, parameters: int = 1000, resume: bool = False) -> Fleet:
        plan = load(
            None,
            [
                f"run.out={tmp_path}",
                "run.rounds=2",
                "clients.count=2",
                "train.trainer=idle",
                "server.long_poll_s=2",
                "evaluate.clients_every=0",
                *overrides,
            ],
        )
        one = Fleet(plan, IdleTrainer.of_size(parameters), resume).__enter__()
        started.append(one)
        return one

    yield start
    for one in reversed(started):
        one.__exit__()


class Caller:
    """A device that keeps no rules: sends what a test tells it to."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.link = GrpcLink(fleet.address)
        self.fleet = fleet
        capabilities = pb.Capabilities(codecs=registry.ids(), trainers=["idle"])
        self.reply = self.link.enrol(
            pb.EnrolRequest(
                protocol=PROTOCOL,
                name=name,
                capabilities=capabilities,
                spec_hash=bytes.fromhex(fleet.trainer.spec.hash),
            )
        )
        self.link.authenticate(self.reply.key)

    def ticket(self, held: bytes = b"") -> pb.Ticket:
        for _ in range(10):
            reply = self.link.get_work(pb.WorkRequest(held=held, wait_seconds=2))
            if reply.WhichOneof("answer") == "ticket":
                return reply.ticket
        raise AssertionError(f"no ticket: {reply}")


@pytest.fixture
def caller() -> type[Caller]:
    return Caller
