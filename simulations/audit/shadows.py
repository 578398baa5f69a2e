"""Shadow models: the same plan on random halves of the candidates, so that each example is in half of the models.

They come in pairs, each the other's complement (Carlini et al. 2022). A shadow is a whole federated run by the inline
engine: same strategy, codecs, rounds and privacy, a seed of its own; it measures nothing and is thrown away. Every
client's candidates are halved, so that the skew between clients stays. Deviation: the audited model is not one of them,
and had all members, not a random half of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PlanError
from fedpress.params import Tensors, from_bytes
from fedpress.plan import Plan
from fedpress.privacy.audit.roc import Scores
from fedpress.sections import Audit, Stop
from fedpress.server import events
from fedpress.server.journal import LAST_FILE
from fedpress.simulations.audit.candidates import Candidates, measured
from fedpress.simulations.engines.inline import inline
from fedpress.simulations.problem import Problem
from fedpress.task import ClientData, Data


class Shadows(NamedTuple):
    """``scores[k, n]``: how sure shadow k is of candidate n; ``inside[k, n]``: it was trained on it."""

    scores: Scores
    inside: NDArray[np.bool_]


class _Shadow(Problem):
    """A problem whose clients hold the given candidates."""

    def __init__(self, plan: Plan, of: Problem, held: list[ClientData]) -> None:
        super().__init__(plan)
        self._of, self._held = of, held

    @cached_property
    def data(self) -> Data:
        """The run's."""
        return self._of.data

    @cached_property
    def clients(self) -> list[ClientData]:
        """What this shadow's clients hold."""
        return self._held


def shadows(
    problem: Problem,
    candidates: Candidates,
    count: int,
    rng: np.random.Generator,
    begin: Callable[[str, Plan], events.Listener],
) -> Shadows:
    """Train ``count`` shadow models and ask them. ``begin`` is told of each run, and gives what listens to it.

    Raises PlanError unless ``count`` is even and at least two.
    """
    if count < 2 or count % 2:
        raise PlanError(f"Expected an even number of shadow models, at least 2, got {count} (audit.shadows).")
    halves = [half for _ in range(count // 2) for half in _pair(candidates, rng)]
    rows = []
    for k, half in enumerate(halves):
        with TemporaryDirectory(prefix="fedpress-shadow-") as place:
            plan = _shadowing(problem.plan, Path(place), int(rng.integers(2**62)))
            held = [_of_client(candidates, half, i) for i in range(len(problem.names))]
            model = _trained(_Shadow(plan, problem, held), begin(f"shadow model {k + 1} of {count}", plan))
        rows.append(measured(problem, model, candidates.split))
    return Shadows(np.stack(rows), np.stack(halves))


def _trained(problem: Problem, listen: events.Listener) -> Tensors:
    problem.check()
    run = inline(problem, listen, False, None, lambda _: lambda _: None)
    return from_bytes((run.run_dir / LAST_FILE).read_bytes())


def _shadowing(plan: Plan, place: Path, seed: int) -> Plan:
    """The plan, quiet: inline, measuring nothing but what is paid for, never ended early, everybody there. Its privacy
    is accounted for in a ledger of its own, that of nobody's budget."""
    measures = plan.evaluate.clients_every if plan.privacy.metrics_noise else 0
    changes = {
        "run": plan.run.model_copy(update={"out": place, "name": "shadow", "seed": seed, "checkpoint_every": 0}),
        "clients": plan.clients.model_copy(update={"availability": "always"}),
        "evaluate": plan.evaluate.model_copy(update={"server_every": 0, "clients_every": measures}),
        "privacy": plan.privacy.model_copy(update={"ledger": None}),
        "engine": plan.engine.model_copy(update={"name": "inline", "clock": "wall", "baseline": False}),
        "stop": Stop(),
        "audit": Audit(),
    }
    return plan.model_copy(update=changes)


def _pair(candidates: Candidates, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A random half of every client's candidates, and the other half."""
    half = np.zeros(len(candidates.inside), np.bool_)
    for client in np.unique(candidates.client):
        own = rng.permutation(np.flatnonzero(candidates.client == client))
        half[own[: (len(own) + int(rng.integers(2))) // 2]] = True
    return half, ~half


def _of_client(candidates: Candidates, half: NDArray[np.bool_], client: int) -> ClientData:
    own = candidates.split.take(half & (candidates.client == client))
    return ClientData(own, own.take(np.zeros(len(own), np.bool_)))
