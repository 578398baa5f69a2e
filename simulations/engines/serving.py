"""A run served to devices that are somewhere else: what ``fedpress server`` does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.service import Service
from fedpress.simulations.host import STORE_FILE, Host
from fedpress.simulations.problem import Problem
from fedpress.simulations.results import Result

_CHECK_S = 0.2


def serve(plan: Plan, listen: events.Listener, say: Callable[[str], object], linger: float) -> Result | None:
    """Serve until the run is over and ``linger`` seconds more; None if a signal stopped it before.

    Continues what is in the plan's directory. ``say`` is told where it listens. Raises FedpressError.
    """
    problem = Problem(plan)
    problem.check_buffers()
    evaluate = problem.evaluator()
    resume = (plan.directory / STORE_FILE).exists()
    with Host(plan, problem.initial, listen, resume=resume) as host:

        async def ready(service: Service) -> None:
            how = "TLS" if plan.server.cert else "no TLS"
            say(f"listening on {plan.server.host}:{service.port} ({how}), run {host.federation.run_id}")
            while not service.federation.finished:
                await asyncio.sleep(_CHECK_S)
            host.result("server")
            await asyncio.sleep(linger)

        async def until_stopped() -> bool:
            task = asyncio.ensure_future(host.serve(evaluate, ready))
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                return False
            return True

        return host.result("server") if asyncio.run(until_stopped()) else None
