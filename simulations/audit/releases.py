"""A run's own noise, tried with canaries: one step of a device's DP-SGD, or one round of the server's central privacy.

What is tried is what ran: the same functions, at the run's clip, noise and delta. What is claimed is of one use, for
whoever is in it: how rarely that is, and how many uses there were, is the accountant's part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fedpress.errors import DataError, PlanError
from fedpress.params import Spec, Tensors
from fedpress.plan import Plan
from fedpress.privacy.accounting import from_json
from fedpress.privacy.audit import mechanism
from fedpress.privacy.audit.mechanism import Verdict
from fedpress.privacy.central import Central
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import tickets
from fedpress.server.guarded import Guarded
from fedpress.server.strategies import Share
from fedpress.simulations.audit.findings import Release

_FEWEST: Final = 2000
_MOST: Final = 20_000


def obstacle(plan: Plan) -> str | None:
    """Why a run's noise cannot be tried, or None."""
    if plan.privacy.mode not in _TRIED:
        return "mechanism: the run adds no noise (privacy.mode)"
    if plan.privacy.mode == "local" and plan.train.trainer != "torch":
        return f"mechanism: canary gradients try torch's DP-SGD, devices trained with {plan.train.trainer}"
    return None


def tried(plan: Plan, noise: Noise) -> Release:
    """What canaries found of the noise of a finished run that has no ``obstacle``; ``plan.directory`` is its own.

    ``noise``: what the trials draw from.
    """
    name, trial = _TRIED[plan.privacy.mode]
    found = trial(plan, noise)
    return Release(name, found.claimed, found.proven, found.proof.delta, found.trials, found.proof.confidence)


def local_privacy(plan: Plan) -> pb.LocalPrivacy:
    """What devices of a finished simulation were told, the noise as their vaults have it: the least of any.

    Raises DataError where no vault says.
    """
    place = plan.directory / "clients"
    vaults = [from_json(path.read_text()) for path in sorted(place.glob("*/privacy.json"))]
    used = [steps.noise_multiplier for history in vaults for steps in history]
    if not used:
        raise DataError(f"Expected vaults that say what devices spent in '{place}', found none.")
    told = tickets.local_privacy(plan)
    return pb.LocalPrivacy(
        noise_multiplier=min(used), clip_norm=told.clip_norm, delta=told.delta, clipping=told.clipping
    )


def round_of(central: Central, noise: Noise) -> mechanism.Mechanism:
    """A round under central privacy, as the server does it: a run's first, each time anew."""

    def release(updates: Sequence[Tensors]) -> Tensors:
        guarded = Guarded(Spec.of(updates[0]), central, noise)
        for update in updates:
            guarded.fold(update, Share(1.0))
        return guarded.aggregate(len(updates)).mean

    return release


def _local(plan: Plan, noise: Noise) -> Verdict:
    from fedpress.privacy.audit import gradients

    said = local_privacy(plan)
    return gradients.audit(said, noise, trials=_trials(said.noise_multiplier))


def _central(plan: Plan, noise: Noise) -> Verdict:
    central = Central.of(plan)
    if central is None:
        raise PlanError(f"Expected central privacy, got '{plan.privacy.mode}' (privacy.mode).")
    trials = _trials(central.multiplier)
    return mechanism.audit(round_of(central, noise), central.bound, central.multiplier, central.delta, trials=trials)


def _trials(multiplier: float) -> int:
    """Enough to tell half the noise from all of it, up to a multiplier of 10: the more noise, the more it takes."""
    return min(_MOST, max(_FEWEST, round(200 * multiplier**2)))


#: By ``privacy.mode``: what is tried, and how.
_TRIED: Final[Mapping[str, tuple[str, Callable[[Plan, Noise], Verdict]]]] = {
    "local": ("canary gradients: a step of DP-SGD", _local),
    "central": ("canary clients: a round on the server", _central),
}
