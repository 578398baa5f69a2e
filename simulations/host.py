"""A server with all that surrounds it: run directory, store, federation, journal, gRPC service, summary.

``fedpress server``, the processes engine and the benchmarks run this one; the inline engine runs its first half,
without the service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from fedpress.errors import PlanError
from fedpress.params import Model, content_hash
from fedpress.plan import Plan
from fedpress.privacy.central import accounted
from fedpress.privacy.ledger import LEDGER_FILE, Ledger
from fedpress.server import events
from fedpress.server.federation import Federation
from fedpress.server.journal import Journal
from fedpress.server.service import Evaluator, Service
from fedpress.server.store import Store
from fedpress.simulations.records import RoundRecord, read_rounds, trained
from fedpress.simulations.results import Result, Summary, summarise

STORE_FILE = "store.sqlite"


class Host:
    """One run's server. A context manager: leaving it closes the store, whatever happened.

    ``initial``: the whole model before round 1. ``resume``: continue what the directory holds, else it must hold no
    run.
    ``clock``: seconds, monotonic, real or virtual. ``here``: as for ``server.run.Run``.
    """

    def __init__(
        self,
        plan: Plan,
        initial: Model,
        listen: events.Listener = lambda _: None,
        *,
        resume: bool = False,
        durable: bool = True,
        clock: Callable[[], float] = time.monotonic,
        here: Callable[[str, int, float], bool] | None = None,
    ) -> None:
        self.plan = plan
        self._listen = listen
        path = plan.directory / STORE_FILE
        if path.exists() and not resume:
            raise PlanError(
                f"Expected no run in '{plan.directory}', found one. Continue it with --resume, start over with "
                "--fresh, or choose another run.name."
            )
        if resume and not path.exists():
            raise PlanError(f"Expected a run to resume in '{plan.directory}', found none.")
        self.store = Store(path, durable)
        account = plan.privacy.ledger or plan.directory / LEDGER_FILE
        self.ledger = Ledger(account, accounted(plan), durable) if plan.privacy.mode != "none" else None
        self.federation = Federation(plan, initial, self.store, clock, self._hear, here, self.ledger)
        self.journal = Journal(plan, self.store, initial.unsent if self.federation.whole else {})
        self.federation.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        if self.ledger is not None:
            self.ledger.close()

    def rounds(self) -> list[RoundRecord]:
        """What is done so far."""
        return read_rounds(self.plan.directory)

    def result(self, engine: str, baseline: Summary | None = None, wall_seconds: float | None = None) -> Result:
        """Write and return what the run came to. ``wall_seconds``: what it took, where its clock is virtual."""
        federation = self.federation
        rounds = self.rounds()
        done = max((r.round for r in trained(rounds)), default=0)
        self.journal.ended(done, federation.model)
        summary = summarise(
            self.plan,
            rounds,
            parameters=federation.spec.size,
            model=content_hash(federation.versions.exact),
            clients=federation.enrolled,
            engine=engine,
            wire_up=federation.meter.wire[0],
            wire_down=federation.meter.wire[1],
            baseline=baseline,
            wall_seconds=wall_seconds,
            ended=self.store.meta("ended") or "",
            diverged=federation.diverged,
        )
        summary.write(self.plan.directory)
        return Result(self.plan.directory, summary, rounds)

    async def serve(self, evaluate: Evaluator | None, ready: Callable[[Service], Awaitable[None]]) -> None:
        """Listen until the run is over.

        ``ready`` is called once the port is open, and runs beside the service until the run ends; it ends the run by
        raising.
        """
        service = Service(self.federation, self.plan.server, evaluate)
        await service.start()
        beside = asyncio.ensure_future(ready(service))
        run = asyncio.ensure_future(service.finished())
        try:
            await asyncio.wait({beside, run}, return_when=asyncio.FIRST_EXCEPTION)
            await run if run.done() else beside
            await beside
        finally:
            run.cancel()
            beside.cancel()
            await service.stop()

    def _hear(self, event: events.Event) -> None:
        if isinstance(event, events.RoundClosed):
            self.journal.write(event.record, event.model)
        elif isinstance(event, events.BestModel):
            self.journal.best(event.round, event.model)
        self._listen(event)
