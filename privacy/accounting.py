"""What a device has spent of its privacy: a history of noisy steps, and the epsilon it amounts to.

Renyi differential privacy of the subsampled Gaussian (Mironov, Talwar, Zhang 2019): by Opacus, as its ``RDPAccountant``
has it, or on a device without torch by Google's dp-accounting at the same orders. The guarantee is per example, for
adding or removing one of the device's training examples. History outlives rounds, runs and restarts: it is about the
data, and the data stay the same. Neither library is needed but to compute an epsilon.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import BudgetSpent, MissingExtra, PrivacyError


class Steps(NamedTuple):
    """``steps`` noisy steps alike: noise over clip bound, and the chance of each example to be in a step."""

    noise_multiplier: float
    sample_rate: float
    steps: int


History: TypeAlias = tuple[Steps, ...]

#: The orders of Opacus' ``RDPAccountant``.
ORDERS: Final = np.array([1 + x / 10 for x in range(1, 100)] + list(range(12, 64)))
#: ``noise_for`` gives at most this share more than the least noise, and looks for it between these.
_TIGHT, _LEAST, _MOST = 1e-3, 0.25, 2.0**14


def extended(history: History, more: Steps) -> History:
    """``history`` with ``more`` added. Like steps are one entry: the order of steps costs nothing."""
    if more.steps == 0:
        return history
    for place, known in enumerate(history):
        if known[:2] == more[:2]:
            return (*history[:place], known._replace(steps=known.steps + more.steps), *history[place + 1 :])
    return (*history, more)


def epsilon(history: Sequence[Steps], delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy that ``history`` amounts to; 0.0 for an empty one.

    From Renyi's privacy by Balle et al. 2020, theorem 21, as in both libraries. Raises MissingExtra without either.
    """
    if not history:
        return 0.0
    spent = np.sum([entry.steps * _renyi(entry.noise_multiplier, entry.sample_rate) for entry in history], axis=0)
    found = spent - (np.log(delta) + np.log(ORDERS)) / (ORDERS - 1) + np.log((ORDERS - 1) / ORDERS)
    return max(0.0, float(np.nanmin(found)))


@lru_cache(maxsize=1024)
def _renyi(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """Renyi divergence of one step at ``ORDERS``, by the library that is there."""
    try:
        return by_opacus(noise_multiplier, sample_rate)
    except ModuleNotFoundError:
        pass
    try:
        return by_dp_accounting(noise_multiplier, sample_rate)
    except ModuleNotFoundError as error:
        raise MissingExtra("Accounting for local privacy without torch", "privacy") from error


def by_opacus(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """Renyi divergence of one step at ``ORDERS``. Needs opacus."""
    from opacus.accountants.analysis.rdp import compute_rdp

    found: NDArray[np.float64] = compute_rdp(
        q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS.tolist()
    )
    return found


def by_dp_accounting(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """The same at whole orders; between them an upper bound, infinite where its series does not converge. Needs
    dp-accounting."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    log, event = logging.getLogger("absl"), PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier))
    silent, log.disabled = log.disabled, True  # it warns of each such order; an epsilon holds without them
    try:
        found: NDArray[np.float64] = RdpAccountant(ORDERS.tolist()).compose(event).rdp
    finally:
        log.disabled = silent
    return found


@lru_cache(maxsize=256)
def noise_for(target: float, delta: float, work: History) -> float:
    """The noise multiplier z at which all of ``work`` costs at most ``target``, and at most 0.1 % more than needed.

    ``work`` has its noise multipliers in units of z. The same arguments give the same z, on every call and restart.
    Raises PrivacyError where no noise is enough.
    """
    limit = target * (1 - 1e-6)  # rounding must not make the last step too dear

    def fits(noise: float) -> bool:
        return epsilon([w._replace(noise_multiplier=noise * w.noise_multiplier) for w in work], delta) <= limit

    enough = 1.0
    while not fits(enough):
        enough *= 2
        if enough > _MOST:
            raise PrivacyError(
                f"No noise brings epsilon down to {target:g} at delta {delta:g}: "
                "allow a greater epsilon, or fewer rounds (privacy.epsilon)."
            )
    while enough > _LEAST and fits(enough / 2):
        enough /= 2
    if enough <= _LEAST:
        return enough
    too_little = enough / 2
    while enough > (1 + _TIGHT) * too_little:
        middle = (enough * too_little) ** 0.5
        enough, too_little = (middle, too_little) if fits(middle) else (enough, middle)
    return enough


def afford(history: History, more: Steps, delta: float, max_epsilon: float) -> None:
    """Raise BudgetSpent if ``more`` steps would take epsilon past ``max_epsilon``; 0 means no budget."""
    check_budget(history, extended(history, more), delta, max_epsilon)


def check_budget(
    before: History, after: History, delta: float, max_epsilon: float, key: str = "privacy.max_epsilon"
) -> None:
    """Raise BudgetSpent if ``after``, all that would be spent, is past ``max_epsilon``; 0 means no budget. ``key``: of
    the plan, which sets it."""
    if max_epsilon <= 0:
        return
    spent, would = epsilon(before, delta), epsilon(after, delta)
    if would > max_epsilon:
        raise BudgetSpent(
            f"Training would take epsilon from {spent:.3f} to {would:.3f} at delta {delta:g}, "
            f"past this device's budget of {max_epsilon:g} ({key})."
        )


def to_json(history: History) -> str:
    """The history as JSON."""
    return json.dumps({"steps": [list(entry) for entry in history]})


def from_json(text: str) -> History:
    """Inverse of ``to_json``. Raises PrivacyError."""
    try:
        rows = json.loads(text)["steps"]
        history = tuple(Steps(float(noise), float(rate), int(steps)) for noise, rate, steps in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise PrivacyError(f"Expected a privacy history as JSON, got {text[:80]!r}.") from error
    if any(entry.noise_multiplier <= 0 or not 0 < entry.sample_rate <= 1 or entry.steps < 1 for entry in history):
        raise PrivacyError(f"Expected positive noise and steps and a rate in (0, 1], got {history}.")
    return history
