"""The engines: ways to run one plan, behind one call with one result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Final

from fedpress.errors import PlanError, closest
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.simulations.engines.inline import inline
from fedpress.simulations.engines.processes import processes
from fedpress.simulations.engines.virtual import virtual
from fedpress.simulations.problem import Problem
from fedpress.simulations.results import SUMMARY_FILE, Result, Summary

Engine = Callable[[Problem, events.Listener, bool, Summary | None], Result]


#: By ``engine.name`` and ``engine.clock``. Flower's engine enters here.
ENGINES: Final[Mapping[tuple[str, str], Engine]] = {
    ("inline", "wall"): inline,
    ("inline", "virtual"): virtual,
    ("processes", "wall"): processes,
}


def simulate(
    plan: Plan,
    listen: events.Listener = lambda _: None,
    *,
    resume: bool = False,
    fresh: bool = False,
    listen_baseline: events.Listener = lambda _: None,
) -> Result:
    """Run a plan to its end.

    ``resume``: continue the run in the plan's directory. ``fresh``: remove what is there first. With
    ``engine.baseline`` the same plan runs uncompressed first, inline, and the summary compares. ``listen`` hears
    ``server.events`` from any thread. Raises FedpressError before anything starts where the plan cannot be run.
    """
    engine = ENGINES.get((plan.engine.name, plan.engine.clock))
    if engine is None:
        known = {name for name, _ in ENGINES}
        raise PlanError(f"The engine '{plan.engine.name}' is not there yet (engine.name). {closest('', known)}")
    problem = Problem(plan)
    problem.check()
    if fresh:
        shutil.rmtree(plan.directory, ignore_errors=True)
    reference = baseline(plan, listen_baseline) if plan.engine.baseline else None
    return engine(problem, listen, resume, reference)


def baseline(plan: Plan, listen: events.Listener) -> Summary:
    """The plan's uncompressed twin: whole fp32 models both ways, same seed and clock. Kept in ``baseline`` in the run's
    own."""
    twin = plan.model_copy(
        update={
            "run": plan.run.model_copy(update={"out": plan.directory, "name": "baseline", "checkpoint_every": 0}),
            "upload": plan.upload.model_copy(update={"codec": "raw"}),
            "download": plan.download.model_copy(update={"codec": "raw", "mode": "full"}),
            "engine": plan.engine.model_copy(update={"name": "inline", "baseline": False}),
        }
    )
    if (twin.directory / SUMMARY_FILE).exists():
        return Summary.read(twin.directory)
    shutil.rmtree(twin.directory, ignore_errors=True)
    return ENGINES["inline", plan.engine.clock](Problem(twin), listen, False, None).summary
