"""Central differential privacy of whole clients: what a plan's keys come to, and which plans cannot keep the promise.

A round releases the sum of its clients' updates, each clipped to ``bound``, with Gaussian noise of ``multiplier`` times
that bound, divided by a number that does not depend on who came (McMahan et al. 2018, "Learning Differentially Private
Recurrent Language Models"). How often a client is in that sum is the ``sampling``:

    poisson   each client with the same chance, by itself, in secret: amplified, for one client's data more or less
    fixed     a cohort of a fixed share, drawn in secret: amplified, for one client's data replaced by others
    none      anything else (turns, buffers, all of them): each client pays for the rounds that it was in

The statement is about what clients' updates and metrics say, not about who took part: where a round waits, or is left
out, because few came, that may be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from fedpress.errors import PlanError, PrivacyError
from fedpress.plan import Plan
from fedpress.privacy.accountants import Charge, Sampling, noise_for
from fedpress.privacy.adaptive import AdaptiveClip
from fedpress.privacy.correlated import Banded

POISSON: Final[Sampling] = "poisson"
FIXED: Final[Sampling] = "fixed"
NONE: Final[Sampling] = "none"
_KINDS: Final[Mapping[str, Sampling]] = {"poisson": POISSON, "uniform": FIXED}
#: Of delta: for cohorts that are drawn too small, and release noise alone.
_SLACK: Final = 0.01
#: The largest epsilon for which that share is enough, where a plan names none.
_LARGEST: Final = 10.0


@dataclass(frozen=True)
class Central:
    """One plan's central privacy. ``multiplier``: noise over ``bound``, of all that one round releases together.

    ``divisor``: the clients that a round is expected to have. ``least``: updates without which nothing is released.
    ``metrics``: noise over bound of clients' metrics; 0: they are not asked for.
    """

    sampling: Sampling
    rate: float
    bound: float
    multiplier: float
    divisor: float
    delta: float
    least: int
    metrics: float = 0.0
    metrics_every: int = 0
    adaptive: AdaptiveClip | None = None
    banded: Banded | None = None

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """What a plan says; None without central privacy. Where it names an epsilon, the noise is solved for. Raises
        PlanError, with the reason, for a plan that cannot keep the promise."""
        if plan.privacy.mode != "central":
            return None
        check(plan)
        privacy, kind = plan.privacy, sampling(plan)
        made = cls(
            sampling=kind,
            rate=1.0 if kind == NONE else plan.cohort.fraction,
            bound=privacy.clip_norm,
            multiplier=privacy.noise_multiplier,
            divisor=float(plan.cohort.buffer or plan.cohort_size(plan.clients.count)),
            delta=accounted(plan),
            least=least(plan),
            metrics=privacy.metrics_noise,
            metrics_every=plan.evaluate.clients_every if privacy.metrics_noise else 0,
            banded=Banded(privacy.bands) if privacy.mechanism == "banded" else None,
        )
        try:
            if privacy.epsilon:
                noise = noise_for(privacy.epsilon, made.delta, lambda z: replace(made, multiplier=z).of_run(plan))
                made = replace(made, multiplier=noise)
            if privacy.clip_quantile:
                adaptive = AdaptiveClip.of(privacy.clip_quantile, made.divisor)
                adaptive.remaining(made.multiplier)
                made = replace(made, adaptive=adaptive)
        except PrivacyError as error:
            raise PlanError(f"{error} (privacy)") from error
        return made

    def charge(self, round_: int) -> Charge:
        """What a round costs whoever pays for it: the model's noise and the metrics' together, since both are of one
        cohort. Two Gaussian releases with multipliers a and b are one with ``(a**-2 + b**-2)**-0.5``."""
        multiplier = self.multiplier
        if self.measures(round_):
            multiplier = (multiplier**-2 + self.metrics**-2) ** -0.5
        return Charge(multiplier, self.sampling, self.rate)

    @property
    def dearest(self) -> Charge:
        """What the round costs that costs most."""
        return self.charge(1)

    def measures(self, round_: int) -> bool:
        """Clients' metrics are released with this round."""
        return bool(self.metrics_every and (round_ - 1) % self.metrics_every == 0)

    def of_run(self, plan: Plan) -> Sequence[Charge]:
        """What a whole run is expected to cost: the population, or a client that has its fair share of the rounds."""
        rounds = range(1, plan.run.rounds + 1)
        if self.sampling == NONE:
            rounds = rounds[: participations(plan)]
        return [self.charge(round_) for round_ in rounds]


def accounted(plan: Plan) -> float:
    """The delta that epsilons are computed at: the plan's, less what Poisson cohorts below the least may add."""
    small = plan.privacy.mode == "central" and sampling(plan) == POISSON and least(plan) > 1
    return plan.privacy.delta * (1.0 - _SLACK * small)


def sampling(plan: Plan) -> Sampling:
    """How often a client is in a round's sum, as far as a promise can use it."""
    if plan.cohort.buffer or plan.privacy.mechanism == "banded":
        return NONE
    kind = _KINDS.get(plan.cohort.selection, NONE)
    return NONE if kind == FIXED and plan.cohort.fraction == 1 else kind


def participations(plan: Plan) -> int:
    """Rounds in which a client has its fair share, where it pays by the round: of a fleet that is always there."""
    each = plan.cohort.buffer or plan.cohort_size(plan.clients.count)
    fair = math.ceil(plan.run.rounds * min(1.0, each / plan.clients.count))
    return min(fair, math.ceil(plan.run.rounds / plan.privacy.bands)) if plan.privacy.bands else fair


def check(plan: Plan) -> None:
    """Raise PlanError for the first thing in a plan with central privacy that would make its statement untrue."""
    kind = sampling(plan)
    for met, expected in _clauses(plan, kind):
        if not met():
            raise PlanError(f"Expected {expected} (privacy.mode = 'central').")


def pool(plan: Plan) -> int:
    """Clients that a Poisson cohort must be drawn of, for one below the least to be as rare as promised."""
    low, high = 1, plan.clients.count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _too_small(plan, middle) <= _SLACK * plan.privacy.delta else (middle + 1, high)
    return low


def pledge(plan: Plan, made: Central | None) -> Mapping[str, str]:
    """What must stay as it is while a run goes on, by key: or what its ledger says would not be what was done."""
    keys: dict[str, object] = {"privacy.mode": plan.privacy.mode}
    if made is not None:
        names = ("mechanism", "bands", "clip_norm", "clip_quantile", "metrics_noise")
        keys |= {f"privacy.{name}": getattr(plan.privacy, name) for name in names}
        keys |= {f"cohort.{name}": getattr(plan.cohort, name) for name in ("selection", "fraction", "buffer")}
        if made.banded is not None:  # what later rounds hide is also earlier rounds'
            keys["privacy.noise_multiplier"] = f"{made.multiplier:.6g}"
    return {key: str(value) for key, value in keys.items()}


def _clauses(plan: Plan, kind: Sampling) -> Sequence[tuple[Callable[[], bool], str]]:
    """What must hold, and how to say that it does not."""
    p, cohort, clients = plan.privacy, plan.cohort, plan.clients.count
    drawn = kind in (POISSON, FIXED)
    return (
        (
            lambda: plan.strategy.weighting == "uniform",
            "strategy.weighting = 'uniform': a client that counts for more than others passes its bound",
        ),
        (
            lambda: cohort.selection not in ("weighted", "deadline-aware"),
            f"cohort.selection other than '{cohort.selection}': who takes part would depend on what devices hold",
        ),
        (
            lambda: cohort.late == "drop",
            "cohort.late = 'drop': a client would be in one sum twice",
        ),
        (
            lambda: not drawn or cohort.over_select == 1.0,
            "cohort.over_select = 1: clients would be drawn more often than the statement says",
        ),
        (
            lambda: cohort.selection != "poisson" or kind == POISSON,
            "cohort.selection other than 'poisson' with cohort.buffer or privacy.mechanism = 'banded', which promise "
            "nothing of a draw",
        ),
        (
            lambda: plan.evaluate.clients_every == 0 or p.metrics_noise > 0,
            "evaluate.clients_every = 0, or privacy.metrics_noise > 0: clients' metrics would leave without noise",
        ),
        (
            lambda: p.delta < 1.0 / clients,
            f"privacy.delta below 1 / clients.count ({1.0 / clients:.3g}), got {p.delta:g}: a server that published "
            "one client outright would meet it",
        ),
        (
            lambda: kind != FIXED or cohort.fraction * clients >= least(plan),
            f"cohort.fraction * clients.count of at least {least(plan)}, got {cohort.fraction * clients:g}: no cohort "
            "of that share is large enough",
        ),
        (
            lambda: kind != POISSON or _too_small(plan, clients) <= _SLACK * p.delta,
            f"cohort.fraction * clients.count further above privacy.min_cohort and cohort.min_updates "
            f"({least(plan)}): smaller cohorts would be drawn too often",
        ),
        (
            lambda: (p.mechanism == "banded") == (p.bands > 0),
            f"privacy.bands > 0 with privacy.mechanism = 'banded' and only there, got {p.bands}",
        ),
        (
            lambda: p.mechanism != "banded" or cohort.buffer == 0,
            "cohort.buffer = 0 with privacy.mechanism = 'banded', which counts in rounds",
        ),
        (
            lambda: p.mechanism != "banded" or p.bands * plan.cohort_size(clients) <= clients,
            f"privacy.bands of at most clients.count over the cohort ({clients // max(1, plan.cohort_size(clients))}), "
            f"got {p.bands}: nobody would be left to take part",
        ),
        (
            lambda: p.mechanism != "banded" or (not p.clip_quantile and not p.metrics_noise),
            "privacy.clip_quantile = 0 and privacy.metrics_noise = 0 with privacy.mechanism = 'banded'",
        ),
    )


def least(plan: Plan) -> int:
    """Updates without which a round releases nothing of clients."""
    return max(1, plan.cohort.min_updates, plan.privacy.min_cohort)


def _too_small(plan: Plan, willing: int) -> float:
    """What Poisson cohorts below the least add to delta, drawn of so many clients: the chance of one in any round, for
    the others than one client, times ``1 + exp(epsilon)``, since rounds that differ in that alone can then be told
    apart."""
    n, q, few = willing - 1, plan.cohort.fraction, least(plan)
    if few <= 1:
        return 0.0  # a round without anybody is a sum of nothing, with noise
    if q >= 1.0:
        return 0.0 if n >= few else math.inf
    chance = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(q))
        * math.exp((n - k) * math.log1p(-q))
        for k in range(min(few, n + 1))
    )
    return plan.run.rounds * chance * (1.0 + math.exp(plan.privacy.budget or _LARGEST))
