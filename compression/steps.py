"""How fine a quantiser must be: the step that loses a given share of the energy, for a whole update and per tensor.

Magnitudes are counted in bins of a sixteenth of an octave. With counts c and magnitudes v of the bins, a dead-zone
quantiser of step s loses sum(c * v**2 * g(v / s)), where g is the share that a number of v / s steps loses: 1 in the
dead zone, little above it. That estimate grows with s, nearly so at least, which is enough for bisection; it needs no
pass over the data, and is the same on every machine: integer counts, single products, sums that are rounded once. Who
encodes checks the true loss afterwards.

One step for the whole update is the best that there is for its energy (reverse water-filling): quiet tensors get few
bits by themselves. But a tensor whose numbers all lie far below the step would wait for ever, whatever error feedback
adds up. So a tensor that would lose more than ``LAG`` of its own energy gets a finer step, half as often as needed; and
small tensors, such as biases and the scales of normalisation layers, get one that loses at most ``SMALL_LOSS``: all of
them together cost next to nothing, and every number of theirs counts for much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.native import kernels

#: Most of its own energy that a tensor may lose in one payload.
LAG: Final = 0.9
#: The same of a tensor with at most so small a share of all numbers.
SMALL_LOSS: Final = 0.1
SMALL_SHARE: Final = 1 / 256
#: A tensor's step is the update's, halved at most so often.
MOST_HALVINGS: Final = 31
_BINS: Final = 4096
_PER_OCTAVE: Final = 16


class Energy(NamedTuple):
    """How the energy of some numbers lies over their magnitudes: ``of[i]`` at ``sizes[i]``; ``total``, their sum."""

    sizes: NDArray[np.float64]
    of: NDArray[np.float64]
    total: float

    @classmethod
    def counted(cls, x: NDArray[np.float32]) -> Energy:
        """Of float32[n]. Numbers too small to be normal count as nothing."""
        counts = np.empty(_BINS, np.int64)
        kernels.histogram(x, counts)
        bins = np.flatnonzero(counts[_PER_OCTAVE:]) + _PER_OCTAVE
        of = counts[bins].astype(np.float64) * np.square(_MIDDLES[bins])
        return cls(_MIDDLES[bins], of, math.fsum(of.tolist()))

    @classmethod
    def together(cls, parts: Sequence[Energy]) -> Energy:
        """Of all numbers of ``parts``."""
        whole = np.zeros(_BINS)
        for part in parts:
            whole[_bins_of(part.sizes)] += part.of  # exact: a middle's square has 12 bits, and counts have few
        bins = np.flatnonzero(whole)
        return cls(_MIDDLES[bins], whole[bins], math.fsum(whole[bins].tolist()))

    def lost(self, step: float) -> float:
        """About the share of the energy that a ``step`` > 0 loses; 0 of nothing."""
        if not self.total:
            return 0.0
        steps = self.sizes / step
        level = np.floor(steps + 1 / 3)
        shares = np.square((steps - level) / steps)  # 1 in the dead zone
        return math.fsum((self.of * shares).tolist()) / self.total

    def coarsest(self, share: float, most: float) -> float:
        """The coarsest step, at most ``most``, that loses about ``share`` at most; with 4 bits of mantissa."""
        low, high = _PER_OCTAVE, _bin_of(most)
        while low < high:
            middle = (low + high + 1) // 2
            if self.lost(_step_of(middle)) <= share:
                low = middle
            else:
                high = middle - 1
        return _step_of(low)


def halvings(of: Sequence[Energy], sizes: Sequence[int], step: float, most: int = MOST_HALVINGS) -> list[int]:
    """How often ``step`` is halved for each tensor, ``most`` at most. ``sizes``: how many numbers each tensor has."""
    whole = sum(sizes)
    found = []
    for energy, size in zip(of, sizes, strict=True):
        limit = SMALL_LOSS if size <= SMALL_SHARE * whole else LAG
        need = 0
        while need < most and energy.lost(math.ldexp(step, -need)) > limit:
            need += 1
        found.append(need)
    return found


def _bins_of(sizes: NDArray[np.float64]) -> NDArray[np.uint32]:
    return sizes.astype(np.float32).view(np.uint32) >> np.uint32(19)


def _bin_of(step: float) -> int:
    return int(_bins_of(np.array([step]))[0])


def _step_of(bin_: int) -> float:
    return float(np.uint32(bin_ << 19).view(np.float32))


def _middles() -> NDArray[np.float64]:
    """The middle magnitude of each bin of normal numbers; those below hold none."""
    octave, place = np.divmod(np.arange(_BINS), _PER_OCTAVE)
    middles: NDArray[np.float64] = np.ldexp(1 + (place + 0.5) / _PER_OCTAVE, octave - 127)
    return middles


_MIDDLES: Final = _middles()
