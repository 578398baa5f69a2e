"""DP-SGD (Abadi et al. 2016) as far as it is the same whatever trains: which steps, which examples, how much noise.

Each example is in each step with chance ``rate`` (Poisson sampling); its gradient is cut to a bound; Gaussian noise is
added to the sum, which is divided by the *expected* batch. A trainer does the cutting: ``clip_norm`` bounds the whole
gradient ("flat"), each of its k tensors by ``clip_norm / sqrt(k)`` ("per-layer"), so that either way no example moves
the sum by more than ``clip_norm``; "ghost" is "flat" without a gradient per example in memory (Li et al. 2022).

A rule that takes its own steps may ask for several gradients on one batch. Those are m Gaussian queries on one sample:
together, and adaptively, no more telling than one with ``noise_multiplier / sqrt(m)`` (Dong, Roth, Su 2022, corollary
3.3), and since the whole conversation is one mechanism on that sample, sampling amplifies it like a single query (Zhu,
Dong, Wang 2022, theorem 11). That is what ``Batches`` charges.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError
from fedpress.privacy.accounting import History, Steps, check_budget, extended
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb

FLAT: Final = "flat"
PER_LAYER: Final = "per-layer"
GHOST: Final = "ghost"
CLIPPINGS: Final = (FLAT, PER_LAYER, GHOST)
#: Added to norms that divide, as in Opacus.
SMALL: Final = 1e-6


@dataclass(frozen=True)
class Mechanism:
    """One noisy gradient. ``mean_batch``: expected examples per step, which divides the noisy sum."""

    noise_multiplier: float
    clip_norm: float
    clipping: str
    rate: float
    examples: int
    noise: Noise

    @property
    def mean_batch(self) -> float:
        """Of examples."""
        return self.rate * self.examples

    def draw(self) -> NDArray[np.int64]:
        """The examples of one step; often fewer or more than ``mean_batch``, sometimes none."""
        return (self.noise.uniform(self.examples) < self.rate).nonzero()[0]

    def drawn_noise(self, size: int) -> NDArray[np.float64]:
        """What is added to ``size`` elements of the sum of clipped gradients."""
        return self.noise.gaussian(size, self.noise_multiplier * self.clip_norm)

    def bound(self, tensors: int) -> float:
        """L2 bound of one example's gradient: of the whole, or per layer of each of so many ``tensors``."""
        return self.clip_norm / sqrt(tensors) if self.clipping == PER_LAYER else self.clip_norm


def mechanism(examples: int, privacy: pb.LocalPrivacy, rate: float, noise: Noise) -> Mechanism:
    """What a ticket says, on this device."""
    return Mechanism(privacy.noise_multiplier, privacy.clip_norm, privacy.clipping or FLAT, rate, examples, noise)


def plan_steps(examples: int, training: pb.Training, privacy: pb.LocalPrivacy) -> Steps:
    """The noisy steps that ``training`` means: one per batch, an example in each with chance 1/(batches per epoch).

    Raises PrivacyError, with the reason, where they would promise nothing.
    """
    check(examples, privacy)
    per_epoch = -(-examples // training.batch_size)
    steps = training.epochs * per_epoch
    return Steps(privacy.noise_multiplier, 1 / per_epoch, min(steps, training.max_steps or steps))


def check(examples: int, privacy: pb.LocalPrivacy) -> None:
    """Raise PrivacyError for parameters that promise nothing on a device with so many examples."""
    noise, clip = privacy.noise_multiplier, privacy.clip_norm
    if not (noise > 0 and clip > 0 and isfinite(noise) and isfinite(clip) and 0 < privacy.delta < 1):
        raise PrivacyError(
            f"Expected noise_multiplier > 0, clip_norm > 0 and 0 < delta < 1 from the server, got {privacy}."
        )
    if privacy.delta * examples >= 1:
        raise PrivacyError(
            f"Expected delta below 1/{examples}, one in as many as this device's examples, got {privacy.delta:g}: "
            "publishing one of them outright would count as private (privacy.delta)."
        )
    if privacy.clipping and privacy.clipping not in CLIPPINGS:
        raise PrivacyError(
            f"Expected a way to clip that this device knows ({', '.join(CLIPPINGS)}), "
            f"got '{privacy.clipping}' (privacy.clipping)."
        )


def pay(before: History, after: History, privacy: pb.LocalPrivacy) -> None:
    """Raise BudgetSpent if ``after``, all that would be spent, is more than the ticket lets this device spend."""
    key = "privacy.epsilon" if privacy.target_epsilon else "privacy.max_epsilon"
    check_budget(before, after, privacy.delta, privacy.max_epsilon, key)


class Batches:
    """Batches that a rule asks for noisy gradients on, and what that costs (see the module's docstring)."""

    def __init__(self, privacy: pb.LocalPrivacy, examples: int, noise: Noise) -> None:
        self._privacy = privacy
        self._mechanism = mechanism(examples, privacy, 1.0, noise)
        self._drawn: list[NDArray[np.int64]] = []
        self._asked: Counter[int] = Counter()

    def draw(self, training: pb.Training) -> list[NDArray[np.int64]]:
        """The rows of each step of ``training``. Costs nothing yet. Raises PrivacyError."""
        if not self._mechanism.examples:
            return []
        planned = plan_steps(self._mechanism.examples, training, self._privacy)
        self._mechanism = replace(self._mechanism, rate=planned.sample_rate)
        drawn = [self._mechanism.draw() for _ in range(planned.steps)]
        self._drawn += drawn  # kept, so that no other array can have the identity of one of these
        return drawn

    def ask(self, rows: NDArray[np.int64], before: History) -> Mechanism:
        """Count one more gradient on a drawn batch; ``before`` is what was spent otherwise.

        Raises BudgetSpent, before the batch is touched; PrivacyError for rows that were not drawn here.
        """
        if not any(rows is drawn for drawn in self._drawn):
            raise PrivacyError("Expected a batch as it was drawn: a rule that cuts or makes its own has no promise.")
        asked = self._asked + Counter({id(rows): 1})
        pay(self.charged(before), self._charged(before, asked), self._privacy)
        self._asked = asked
        return self._mechanism

    def charged(self, before: History) -> History:
        """``before``, and what was asked so far."""
        return self._charged(before, self._asked)

    def _charged(self, before: History, asked: Counter[int]) -> History:
        for queries, batches in sorted(Counter(asked.values()).items()):
            noise = self._privacy.noise_multiplier / sqrt(queries)
            before = extended(before, Steps(noise, self._mechanism.rate, batches))
        return before
