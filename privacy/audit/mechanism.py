"""An audit of the aggregate itself: does the noise that is promised hide a client that tries to be seen?

A canary client sends what is hardest to hide: a huge update along one direction, while all others pull the other way at
the bound. The mechanism releases the aggregate thousands of times with the canary and without. A clip that is missing,
noise that is too small, repeats or cancels, and a divisor that tells how many came all show along that direction.

The mechanism is whatever turns updates into a release. What it claims is a Gaussian's trade-off: that it is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from fedpress.errors import PrivacyError
from fedpress.params import Array, Tensors
from fedpress.privacy.audit.epsilon import Proof, between
from fedpress.privacy.audit.roc import Scores
from fedpress.privacy.audit.tradeoff import epsilon_of

#: Clients' updates in, the released aggregate out, with fresh noise at each call.
Mechanism: TypeAlias = Callable[[Sequence[Tensors]], Tensors]

#: Two tensors: a clip that bounds each apart, not both together, lets a canary through that is in both.
_SHAPES: Final = {"a": (2, 2), "b": (4,)}
_HUGE: Final = 1e3  # bounds


@dataclass(frozen=True)
class Verdict:
    """``claimed`` and ``proven`` epsilon at ``delta`` of one release; ``proof`` has both of its bounds."""

    claimed: float
    proof: Proof
    trials: int

    @property
    def proven(self) -> float:
        """The greater of the two lower bounds."""
        return max(self.proof.epsilon, self.proof.gaussian)

    @property
    def broken(self) -> bool:
        """The claim is false, with the proof's confidence."""
        return self.proven > self.claimed


def audit(
    mechanism: Mechanism,
    bound: float,
    noise_multiplier: float,
    delta: float,
    *,
    honest: int = 4,
    trials: int = 2000,
    confidence: float = 0.99,
) -> Verdict:
    """Judge ``mechanism``, which claims to clip to ``bound`` and to add Gaussian noise of ``noise_multiplier`` bounds.

    ``trials``: releases with the canary, and as many without. Raises PrivacyError for a claim of no noise.
    """
    if not (bound > 0 and noise_multiplier > 0):
        raise PrivacyError(f"Expected bound > 0 and noise_multiplier > 0, got {bound:g} and {noise_multiplier:g}.")
    others = [_along(-bound) for _ in range(honest)]
    present, absent = (
        _projections(mechanism, updates, trials) for updates in ([*others, _along(_HUGE * bound)], others)
    )
    claimed = epsilon_of(1 / noise_multiplier, delta)
    return Verdict(claimed, between(present, absent, delta, confidence), trials)


def _along(length: float) -> dict[str, Array]:
    """An update of L2 norm ``|length|`` in the canary's direction, which is the same in every coordinate."""
    size = sum(int(np.prod(shape)) for shape in _SHAPES.values())
    return {name: np.full(shape, length / size**0.5, np.float32) for name, shape in _SHAPES.items()}


def _projections(mechanism: Mechanism, updates: Sequence[Tensors], trials: int) -> Scores:
    direction = _along(1.0)
    return np.array([_dot(mechanism(updates), direction) for _ in range(trials)])


def _dot(a: Tensors, b: Tensors) -> float:
    return float(sum(np.sum(a[name].astype(np.float64) * b[name]) for name in b))
