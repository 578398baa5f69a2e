"""Sensitivity as a type: what leaves the clipping carries its bound, and noise is added only to a sum of such.

    update --clip--> Bounded --fold--> BoundedSum --release--> float32, differentially private

The server clips what it *decoded*: error feedback and lossy codes lengthen what a client clipped, up to 2.7 times.

**Sensitivity, in integers.** ``clip`` puts an update on a grid of ``bound / GRID``, as integers whose sum of squares is
at most GRID^2: computed in integers, so that no rounding makes it untrue. Sums of integers are exact. Adding or
removing one client therefore moves the sum by an integer vector of L2 norm at most GRID, whatever the client, its codec
and its state did; replacing one, by at most twice that.

**Noise.** Discrete Gaussian of deviation ceil(multiplier * GRID) (``privacy.discrete``) on that integer sum: in every
Renyi order at most what the Gaussian mechanism of this multiplier reveals.

**Overflow.** A number of an update is at most 2^24. It takes 2^38 clients to bring a sum to 2^62, and noise is beyond
2^62 with chance exp(-2^31) at the largest deviation there is: int64 holds both.

**Floating point.** What is released is a function of (integer sum + integer noise), the bound and the divisor, and of
nothing else: the low bits of a float tell nothing about the sum without noise (Mironov 2012, "On Significance of the
Least Significant Bits for Differential Privacy"). It is divided by a *given* number, such as the expected size of the
cohort: the number of clients that came is private too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import State
from fedpress.compression.native import kernels
from fedpress.errors import PrivacyError, SpecError
from fedpress.params import Array, Spec, Tensors, zeros
from fedpress.privacy.correlated import Banded
from fedpress.privacy.discrete import LARGEST, discrete_gaussian
from fedpress.privacy.noise import Noise

#: Grid steps in a bound. A step is 2^-24 of it, as fine as a float32 beside its largest neighbour.
GRID: Final = 1 << 24
#: Bounds outside this range are no bounds of float32 updates.
LEAST_BOUND: Final = 1e-20
LARGEST_BOUND: Final = 1e20
#: Numbers at a time: their squares, each at most about 2^48, sum up in int64.
_BLOCK: Final = 1 << 14
_HAIR: Final = 1.0 - 2.0**-30
_MADE_HERE: Final = object()


@dataclass(frozen=True, eq=False)
class Bounded:
    """An update of L2 norm at most ``bound``: int64 tensors in steps of ``bound / GRID``. Only ``clip`` makes one.

    ``inside``: the update was within the bound before it was clipped. That is private: use it through adaptive
    clipping.
    """

    tensors: Tensors
    spec: Spec
    bound: float
    inside: bool
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MADE_HERE:
            raise PrivacyError("Expected a Bounded made by clip(), which proves its bound, got one made by hand.")


def clip(update: Tensors, bound: float, scale: float = 1.0) -> Bounded:
    """``scale * update`` scaled down to L2 norm ``bound`` over all tensors where it is longer, on the grid.

    Norm in float64; rounding toward zero never lengthens. Raises PrivacyError for a bound or scale that cannot be, and
    for NaN or infinity; SpecError for tensors that are not float32.
    """
    _check_bound(bound)
    spec = Spec.of(update)
    flat = {name: np.ravel(array) for name, array in update.items()}
    if not (abs(scale) <= LARGEST_BOUND and all(kernels.finite(x) for x in flat.values())):
        raise PrivacyError(f"Expected finite numbers to clip, got NaN or infinity, or a scale out of range ({scale}).")
    norm = math.sqrt(math.fsum(kernels.sum_squares(x) for x in flat.values()))
    inside = abs(scale) * norm <= bound
    factor = scale * (GRID / bound) if inside else math.copysign(GRID / norm, scale)
    grid = {name: np.empty(x.size, np.int64) for name, x in flat.items()}
    while sum(_round(x, factor, grid[name]) for name, x in flat.items()) > GRID**2:
        factor *= _HAIR  # a float rounded past the bound: by far less than this
    for array in grid.values():
        array.setflags(write=False)
    shaped = {t.name: grid[t.name].reshape(t.shape) for t in spec}
    return Bounded(MappingProxyType(shaped), spec, bound, inside, _MADE_HERE)


class BoundedSum:
    """The exact sum of bounded updates. Memory O(model); ``clear`` starts over without allocating."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._sums = {t.name: np.zeros(t.size, np.int64) for t in spec}
        self._open = False
        self.bound = 0.0
        self.count = 0
        self.inside = 0

    def clear(self, bound: float) -> None:
        """Back to the empty sum, of updates clipped to ``bound``. Raises PrivacyError for one that cannot be."""
        _check_bound(bound)
        for total in self._sums.values():
            total.fill(0)
        self.bound, self.count, self.inside, self._open = bound, 0, 0, True

    def fold(self, update: Bounded) -> None:
        """Add an update. Raises PrivacyError for what was not clipped to this sum's bound or comes after the release;
        SpecError for another model's."""
        self._check_open()
        if not isinstance(update, Bounded):
            raise PrivacyError(f"Expected an update that clip() bounded, got {type(update).__name__}.")
        if update.bound != self.bound:
            raise PrivacyError(f"Expected an update clipped to {self.bound:g}, got one clipped to {update.bound:g}.")
        if update.spec != self._spec:
            raise SpecError("Expected an update of this sum's tensors, got one of another model.")
        for name, total in self._sums.items():
            total += update.tensors[name].reshape(-1)
        self.count += 1
        self.inside += update.inside

    def release(self, multiplier: float, divisor: float, noise: Noise) -> dict[str, Array]:
        """(sum + noise) / divisor, float32, once: the noise of two releases of one sum could be averaged out.

        The noise has standard deviation ``multiplier * bound``. With no update folded it is noise alone: that nobody
        came is private as well. Raises PrivacyError for a multiplier or divisor that cannot be, or a second release.
        """
        sigma = _noise_steps(multiplier, multiplier * GRID)
        self._close(divisor)
        for total in self._sums.values():
            for block in _blocks(total):
                block += discrete_gaussian(noise, block.size, sigma)
        return self._divided(divisor)

    def release_correlated(
        self, multiplier: float, divisor: float, noise: Noise, banded: Banded, past: State
    ) -> tuple[dict[str, Array], State]:
        """As ``release``, with ``banded`` noise that goes on from ``past`` (``NOTHING`` in the first round), and the
        past of the next round: as secret as the sum, and to be kept together with what was released.

        ``multiplier`` is that of one participation. The bound must be the same in all rounds.
        """
        sigma = _noise_steps(multiplier, banded.deviation(multiplier * GRID))
        self._close(divisor)
        z = {t.name: discrete_gaussian(noise, t.size, sigma).reshape(t.shape) for t in self._spec}
        drawn, past = banded.step(z, past)
        for name, total in self._sums.items():
            total += drawn[name].reshape(-1)
        return self._divided(divisor), past

    def _close(self, divisor: float) -> None:
        """From here on the sum is noised in place, and there is no way back to the one without."""
        self._check_open()
        if not 0 < divisor < math.inf:
            raise PrivacyError(f"Expected a divisor > 0 for the noised sum, got {divisor}.")
        self._open = False

    def _divided(self, divisor: float) -> dict[str, Array]:
        """The noised integers in the update's units, multiplied in float64."""
        step = self.bound / GRID / divisor
        out = zeros(self._spec)
        for name, total in self._sums.items():
            for part, block in zip(_blocks(out[name].reshape(-1)), _blocks(total), strict=True):
                part[:] = block * step
        return out

    def _check_open(self) -> None:
        if not self._open:
            raise PrivacyError("Expected clear() before updates are summed or released: a sum is released once.")


def _round(x: NDArray[np.float32], factor: float, out: NDArray[np.int64]) -> int:
    """``out`` = ``factor * x``, rounded toward zero; returns its exact sum of squares."""
    total = 0
    for part, of in zip(_blocks(x), _blocks(out), strict=True):
        of[:] = np.multiply(part, factor, dtype=np.float64)  # assigning floats to integers truncates
        total += int(np.dot(of, of))
    return total


def _blocks(x: Array) -> Iterator[Array]:
    """Views of a flat array, a block each."""
    return (x[at : at + _BLOCK] for at in range(0, x.size, _BLOCK))


def _check_bound(bound: float) -> None:
    if not LEAST_BOUND <= bound <= LARGEST_BOUND:
        raise PrivacyError(f"Expected a clip bound between {LEAST_BOUND:g} and {LARGEST_BOUND:g}, got {bound}.")


def _noise_steps(multiplier: float, steps: float) -> int:
    """The deviation of the noise in whole steps, never less than asked for."""
    if not (0 < multiplier < math.inf and steps <= LARGEST):
        raise PrivacyError(f"Expected a noise multiplier > 0 that int64 sums can hold, got {multiplier}.")
    return math.ceil(steps)
