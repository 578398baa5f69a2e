"""What a device has spent of its privacy: a history of noisy steps, and the epsilon it amounts to.

Renyi differential privacy of the subsampled Gaussian (Mironov, Talwar, Zhang 2019), by Opacus' ``RDPAccountant``. The
guarantee is per example, for adding or removing one of the device's training examples. History outlives rounds, runs
and restarts: it is about the data, and the data stay the same. Needs opacus only to compute an epsilon.
"""

from __future__ import annotations

import json
import warnings
from typing import NamedTuple, TypeAlias

from fedpress.errors import BudgetSpent, MissingExtra, PrivacyError


class Steps(NamedTuple):
    """``steps`` noisy steps alike: noise over clip bound, and the chance of each example to be in a step."""

    noise_multiplier: float
    sample_rate: float
    steps: int


History: TypeAlias = tuple[Steps, ...]


def extended(history: History, more: Steps) -> History:
    """``history`` with ``more`` behind it; a run of like steps stays one entry."""
    if more.steps == 0:
        return history
    if history and history[-1][:2] == more[:2]:
        return (*history[:-1], more._replace(steps=history[-1].steps + more.steps))
    return (*history, more)


def epsilon(history: History, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy that ``history`` amounts to; 0.0 for an empty one."""
    if not history:
        return 0.0
    try:
        from opacus.accountants import RDPAccountant
    except ModuleNotFoundError as error:
        raise MissingExtra("Accounting for local privacy", "torch") from error
    accountant = RDPAccountant()
    accountant.history = [tuple(entry) for entry in history]
    with warnings.catch_warnings():
        # Says that a wider range of Renyi orders might give a smaller epsilon. What is given holds all the same.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        return float(accountant.get_epsilon(delta))


def afford(history: History, more: Steps, delta: float, max_epsilon: float) -> None:
    """Raise BudgetSpent if ``more`` steps would take epsilon past ``max_epsilon``; 0 means no budget."""
    if max_epsilon <= 0:
        return
    after = epsilon(extended(history, more), delta)
    if after > max_epsilon:
        spent = epsilon(history, delta)
        raise BudgetSpent(
            f"Training would take epsilon from {spent:.3f} to {after:.3f} at delta {delta:g}, "
            f"past this device's budget of {max_epsilon:g} (privacy.max_epsilon)."
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
