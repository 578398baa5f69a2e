"""Adaptive clipping: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping".

The bound follows a quantile of the updates' norms. Each client of a round says one bit: was its update within the
bound? The noised share b of those that were moves it: bound * exp(-lr * (b - quantile)). At the quantile it stands
still.

The bits are private and paid for from the same budget. Centred to -1/2 and +1/2, one client moves their sum by at most
1/2 (replacing one: by 1, twice that, as it does the sum of updates). With noise of deviation s on the bits and z' times
the bound on the sum of updates, both together are one Gaussian mechanism of multiplier z, where z^-2 = z'^-2 + (2
s)^-2. Deviations from the paper: the noise is a discrete Gaussian on a fine grid; the bound stays in the range of
float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

from fedpress.errors import PrivacyError
from fedpress.privacy.bounded import LARGEST_BOUND, LEAST_BOUND
from fedpress.privacy.discrete import discrete_gaussian
from fedpress.privacy.noise import Noise

#: Grid steps in one client's bit, of which a half either way is its whole say.
_GRID: Final = 1 << 20


@dataclass(frozen=True)
class AdaptiveClip:
    """The bound goes to the ``quantile`` of updates' norms; ``cohort``: clients expected in a round, also the
    divisor."""

    quantile: float = 0.5
    cohort: float = 100.0
    lr: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise PrivacyError(f"Expected 0 < quantile < 1 of norms to clip at, got {self.quantile}.")
        if not (0 < self.cohort < 1e9 and 0 < self.lr <= 1):
            raise PrivacyError(f"Expected clients in a round and 0 < lr <= 1, got {self.cohort} and {self.lr}.")

    @classmethod
    def of(cls, quantile: float, cohort: float) -> Self:
        """With the paper's step size."""
        return cls(quantile, cohort)

    @property
    def spread(self) -> float:
        """The standard deviation of the noise on the sum of bits, in clients: the paper's twentieth of a cohort."""
        return self.cohort / 20

    def remaining(self, multiplier: float) -> float:
        """The noise multiplier for the sum of updates, so that sum and bits together have ``multiplier``.

        Raises PrivacyError where the bits alone would reveal more than that.
        """
        if not 0 < multiplier < 2 * self.spread:
            raise PrivacyError(
                f"Expected 0 < noise multiplier < {2 * self.spread:g} with adaptive clipping, got {multiplier:g}: that "
                f"takes a cohort of more than {10 * multiplier:g} clients, got {self.cohort:g}."
            )
        return float((multiplier**-2 - (2 * self.spread) ** -2) ** -0.5)

    def share(self, inside: int, count: int, noise: Noise) -> float:
        """The noised share of ``count`` clients that were ``inside`` the bound. Charged: draw it once per aggregate.

        Of the expected cohort, so that of a cohort without anybody it is 1/2.
        """
        steps = (2 * inside - count) * _GRID + int(discrete_gaussian(noise, 1, math.ceil(2 * self.spread * _GRID))[0])
        return 0.5 + steps / (2 * _GRID) / self.cohort

    def step(self, bound: float, share: float) -> float:
        """The next round's bound: post-processing of the noised share."""
        moved = bound * math.exp(-self.lr * (share - self.quantile))
        return min(max(moved, LEAST_BOUND), LARGEST_BOUND)
