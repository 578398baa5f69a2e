"""All attacks on one finished run, one after the other, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress import plan as plans
from fedpress.compression.stream import Stream
from fedpress.errors import DataError, MissingExtra, PlanError
from fedpress.params import Tensors, from_bytes, ordered
from fedpress.plan import Plan
from fedpress.privacy.audit import roc
from fedpress.privacy.audit.epsilon import one_run
from fedpress.privacy.audit.membership import likelihood_ratio
from fedpress.privacy.audit.roc import Scores
from fedpress.privacy.central import FIXED, sampling
from fedpress.privacy.noise import Noise
from fedpress.server.journal import LAST_FILE
from fedpress.server.strategies import build as build_strategy
from fedpress.simulations.audit import releases, uploads
from fedpress.simulations.audit.candidates import Candidates, candidates, measured
from fedpress.simulations.audit.findings import Claim, Findings, Membership
from fedpress.simulations.audit.shadows import shadows
from fedpress.simulations.benchmarks.steps import Steps
from fedpress.simulations.problem import Problem
from fedpress.simulations.results import Result

#: Of (epsilon, delta), where a run claims none.
_DELTA: Final = 1e-5


@dataclass(frozen=True)
class Scene:
    """A finished run as its attackers find it. ``delta``: at which epsilon is proven."""

    problem: Problem
    model: Tensors
    pool: Candidates
    seed: int
    shadows: int
    delta: float
    steps: Steps

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of one attack."""
        return np.random.default_rng(Stream.of(self.seed, "audit", purpose).seed())


def audit_run(run: Path, steps: Steps, attacks: Collection[str], shadow_models: int, seed: int) -> Findings:
    """Attack the finished run in a directory and write ``audit.json`` there.

    ``attacks``: names from ``ATTACKS``; none: all. ``shadow_models``: an even number; 0: none. Raises DataError for a
    directory without a finished simulation, PlanError for a run that cannot be audited or an unknown attack,
    MissingExtra without torch.
    """
    unknown = [name for name in attacks if name not in ATTACKS]
    if unknown:
        raise PlanError(f"Unknown attack '{unknown[0]}'. Known: {', '.join(ATTACKS)}.")
    if shadow_models < 0 or shadow_models % 2:
        raise PlanError(f"Expected an even number of shadow models, got {shadow_models} (--shadows).")
    scene, findings = _scene(run, steps, shadow_models, seed)
    for name, attack in ATTACKS.items():
        if not attacks or name in attacks:
            findings = attack(scene, findings)
    findings.write(run)
    return findings


def _scene(run: Path, steps: Steps, shadow_models: int, seed: int) -> tuple[Scene, Findings]:
    result, file = Result.read(run), run / "plan.toml"
    if not file.is_file():
        raise DataError(f"Expected the run's plan in '{file}', found none.")
    plan = plans.load(file)
    plan = plan.model_copy(update={"run": plan.run.model_copy(update={"out": run.parent, "name": run.name})})
    if result.summary.engine == "server":
        raise DataError(f"Expected a simulated run, whose members are known here; the data of '{run}' are on devices.")
    if plan.train.trainer == "idle":
        raise PlanError("Expected a run that trained, got train.trainer = 'idle'.")
    if not (run / LAST_FILE).is_file():
        raise DataError(f"Expected the run's last model in '{run / LAST_FILE}', found none.")
    problem = Problem(plan)
    try:
        spec = problem.initial.spec
    except MissingExtra as missing:
        raise MissingExtra("An audit", "torch") from missing
    if build_strategy(plan).rule(spec).personal:
        raise PlanError(
            "Expected a run whose server holds the whole model, got a personalized one (strategy.personal)."
        )
    claim = claimed(plan, result)
    delta = claim.delta if claim else _DELTA
    took_part = {name for r in result.rounds for name, c in r.clients.items() if c.examples and c.bytes_up}
    rng = np.random.default_rng(Stream.of(seed, "audit", "candidates").seed())
    pool = candidates(problem, took_part or problem.names, rng)
    model = ordered(from_bytes((run / LAST_FILE).read_bytes()), spec)
    scene = Scene(problem, model, pool, seed, shadow_models, delta, steps)
    return scene, Findings(result.summary.name, result.summary.task, seed, 0, claim)


def claimed(plan: Plan, result: Result) -> Claim | None:
    """The privacy that the run says it has; None where it says nothing."""
    if plan.privacy.mode == "none" or result.summary.epsilon is None:
        return None
    epsilon, delta = result.summary.epsilon, plan.privacy.delta
    if plan.privacy.mode == "local":
        return Claim(epsilon, delta, "example", epsilon)
    return Claim(epsilon, delta, "client", epsilon if sampling(plan) == FIXED else 2 * epsilon)


def _loss(scene: Scene, findings: Findings) -> Findings:
    scene.steps.step("membership by loss threshold")
    scores = measured(scene.problem, scene.model, scene.pool.split)
    return _with(findings, scene, "loss threshold", scores, scene.pool.inside)


def _lira(scene: Scene, findings: Findings) -> Findings:
    if not scene.shadows:
        return _skipped(findings, "likelihood ratio: no shadow models (--shadows, audit.shadows)")
    rng = scene.rng("shadows")
    pool = scene.pool.balanced(rng)
    found = shadows(scene.problem, pool, scene.shadows, rng, scene.steps.run)
    scores = likelihood_ratio(measured(scene.problem, scene.model, pool.split), found.scores, found.inside)
    return replace(_with(findings, scene, "likelihood ratio", scores, pool.inside), shadows=scene.shadows)


def _inversion(scene: Scene, findings: Findings) -> Findings:
    if reason := uploads.obstacle(scene.problem):
        return _skipped(findings, reason)
    scene.steps.begin("gradient inversion", uploads.steps(scene.problem.plan))
    members = scene.pool.split.take(scene.pool.inside)
    drawn = scene.rng("victims").choice(len(members), uploads.EXAMPLES, replace=False)
    found = uploads.probe(scene.problem, members.take(drawn), scene.seed, scene.steps.advance)
    return replace(findings, inversion=found)


def _mechanism(scene: Scene, findings: Findings) -> Findings:
    plan = scene.problem.plan
    if reason := releases.obstacle(plan):
        return _skipped(findings, reason)
    scene.steps.step("canaries against the run's noise")
    release = releases.tried(plan, Noise.seeded(Stream.of(scene.seed, "audit", "mechanism")))
    return replace(findings, releases=[release])


#: Every attack, by the name it is asked for, in order.
ATTACKS: Final[Mapping[str, Callable[[Scene, Findings], Findings]]] = {
    "loss": _loss,
    "lira": _lira,
    "inversion": _inversion,
    "mechanism": _mechanism,
}


def _with(findings: Findings, scene: Scene, attack: str, scores: Scores, inside: NDArray[np.bool_]) -> Findings:
    members, others = scores[inside], scores[~inside]
    guesses = one_run(members, others, scene.delta, scene.rng("guesses"))
    found = Membership.of(attack, roc.curve(members, others), guesses)
    return replace(findings, membership=[*findings.membership, found])


def _skipped(findings: Findings, reason: str) -> Findings:
    return replace(findings, skipped=[*findings.skipped, reason])
