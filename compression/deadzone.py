"""Entropy-coded scalar quantisation with a dead zone: the best single family for updates, from 4 bits per parameter
down to 0.02 (Sullivan 1996, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables").

A number becomes ``trunc(|x| / step + 1/3)`` with its sign, so that zero takes the widest cell; the integers go through
the entropy stage. What a level stands for is the mean of what fell into it (its centroid), told in a byte each for
level 1 and for all above. How the step is found is what ``ecsq`` and ``nmse`` differ in; a tensor may have a finer one,
the update's halved some times (``compression.steps``). Decoders are told the steps.

**Progress.** Whatever is given, at most the share ``most_lost`` of its energy is lost: the step is made finer until
that is so. Numbers below 2**-100 count as zeros.

With ``ladder`` steps are powers of two and a level stands for itself: sums of many such updates are exact in
float32, whatever their order, and a difference of two sums is again a whole number of steps. Downloads are made so.

Payload: the step (a bfloat16; 0: nothing but zeros, and nothing follows), its sign bit set where some tensor has a
finer one; the two centroids unless ``ladder``; if the sign bit is set, a byte w and the halvings of all tensors that
are not empty, packed in w bits each; the levels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits, entropy
from fedpress.compression.codec import Bytes, Context, Loss, State, Trip, Wire
from fedpress.compression.native import kernels
from fedpress.compression.stage import Stage
from fedpress.compression.steps import MOST_HALVINGS, Energy, halvings
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

LIMIT: Final = 32767
_NOTHING: Final = b"\0\0"
#: Steps outside these count as nothing, or are made as large as that: no product of a level can overflow.
_SMALLEST, _LARGEST = 2.0**-100, 2.0**112
_FINER: Final = 0x8000
#: The step is multiplied by this where more was lost than may be.
_NOTCH: Final = 0.75


class DeadZone(Stage):
    """Base of codecs of this format; the steps are their own to find."""

    unbiased: ClassVar[bool] = False  #: small numbers become zero
    ladder: bool
    model: entropy.Model

    @property
    @abstractmethod
    def most_lost(self) -> float:
        """The share of the energy that may be lost, of anything given."""

    @abstractmethod
    def wanted(self, x: NDArray[np.float32], energy: Energy) -> float:
        """The step that is wanted for ``x``, float32[n], of that energy; 0 for nothing."""

    @property
    def keeps(self) -> float:
        """All but ``most_lost``."""
        return 1.0 - self.most_lost

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Steps, centroids, levels."""
        spec = Spec.of(tensors)
        made, _ = self._quantised(flatten(tensors), spec)
        return Wire(self._bytes(made, spec, context), {}), state

    def echo(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State, Tensors]:
        """As ``encode``; the levels need no decoding."""
        return self.trip(tensors, state, context, rng)[:3]

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:  # noqa: ARG002
        """As ``encode``; what is lost is known already."""
        spec = Spec.of(tensors)
        made, loss = self._quantised(flatten(tensors), spec)
        return Trip(Wire(self._bytes(made, spec, context), {}), state, unflatten(_values(made, spec), spec), loss)

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Raises DecodeError."""
        if wire.side == _NOTHING:
            return unflatten(np.zeros(spec.size, np.float32), spec), state
        head = 2 if self.ladder else 4
        if len(wire.side) < head:
            raise DecodeError(f"Expected a step and centroids of '{self.id}', got {len(wire.side)} bytes.")
        word = int.from_bytes(wire.side[:2], "little")
        step = _step_of(word & ~_FINER)
        one, more = (0.0, 0.0) if self.ladder else (_shift(byte) for byte in wire.side[2:4])
        finer = [0] * _tensors(spec)
        if word & _FINER:
            finer, head = _read_halvings(wire.side, head, finer, step)
        levels = entropy.decode(wire.side[head:], spec, LIMIT, partial(_hint, context, spec))
        return unflatten(_values(_Levels(levels, step, finer, one, more), spec), spec), state

    def exact(self, tensors: Tensors) -> bytes | None:
        """A payload that decodes to exactly these tensors, if all numbers of each are whole multiples of a power of two
        (and of no more than 32767 of it), and these powers not too far apart; else None. Of a ``ladder`` only:
        centroids would move them."""
        spec = Spec.of(tensors)
        found = [_multiples(np.ravel(tensors[t.name])) for t in spec if t.size] if self.ladder else []
        if not found or None in found:
            return _NOTHING if self.ladder and not found else None
        units = [unit for unit, _ in filter(None, found)]
        step = max(units)
        if step == 0:
            return _NOTHING
        finer = [math.frexp(step)[1] - math.frexp(unit)[1] if unit else 0 for unit in units]
        if step > _LARGEST or max(finer) > _most_halvings(step) or step < _SMALLEST / 2:
            return None
        levels = np.concatenate([levels for _, levels in filter(None, found)])
        return self._bytes(_Levels(levels, np.float32(step), finer, 0.0, 0.0), spec, Context())

    def error_bound(self, tensors: Tensors) -> float:
        """What may be lost of the energy, or all of numbers that count as zeros."""
        x = flatten(tensors).astype(np.float64)
        return self.most_lost * float(np.sum(x**2)) * (1 + 1e-6) + x.size * _SMALLEST**2

    def max_bytes(self, spec: Spec) -> int:
        """Step, centroids, halvings, and levels as they are."""
        return 5 + bits.packed_size(_tensors(spec), _width(MOST_HALVINGS)) + entropy.max_bytes(spec, LIMIT)

    def _quantised(self, x: NDArray[np.float32], spec: Spec) -> tuple[_Levels, Loss]:
        """Levels that lose no more than may be, and what they lose."""
        runs = list(_runs(spec))
        each = [Energy.counted(x[start:stop]) for start, stop in runs]
        whole = Energy.together(each)
        given = math.fsum(kernels.sum_squares(x[start:stop]) for start, stop in runs)
        want = min(self.wanted(x, whole), _LARGEST)
        if want > _SMALLEST and whole.lost(want) > self.most_lost:
            want = whole.coarsest(self.most_lost, want)
        while want > _SMALLEST:
            step = _rounded(want, self.ladder)
            finer = halvings(each, [stop - start for start, stop in runs], float(step), _most_halvings(float(step)))
            made = self._levels(x, runs, step, finer)
            loss = Loss(given, _lost(x, made, runs))
            if loss.lost <= self.most_lost * given:
                return made, loss
            want = float(step) * (0.5 if self.ladder else _NOTCH)
        return _Levels(np.zeros(spec.size, np.int16), np.float32(0), [], 0.0, 0.0), Loss(given, given)

    def _levels(
        self, x: NDArray[np.float32], runs: Sequence[tuple[int, int]], step: np.float32, finer: list[int]
    ) -> _Levels:
        levels = np.empty(x.size, np.int16)
        about = [0, 0, 0, 0]
        for (start, stop), own in _steps(runs, step, finer):
            inverse = float(np.float32(1 / own))
            found = kernels.quantise(x[start:stop], inverse, levels[start:stop])
            about = [a + b for a, b in zip(about, found, strict=True)]
        one, more = (0.0, 0.0) if self.ladder else (_shift(_centroid(*about[i : i + 2])) for i in (0, 2))
        return _Levels(levels, step, finer, one, more)

    def _bytes(self, made: _Levels, spec: Spec, context: Context) -> bytes:
        if not made.step:
            return _NOTHING
        word = int(made.step.view(np.uint32)) >> 16
        head = b"" if self.ladder else bytes((_byte(made.one), _byte(made.more)))
        if any(made.finer):
            width = _width(max(made.finer))
            word |= _FINER
            head += bytes([width]) + bits.pack(np.array(made.finer, np.uint8), width)
        coded = entropy.encode(made.levels, spec, LIMIT, self.model, partial(_hint, context, spec))
        return word.to_bytes(2, "little") + head + coded


class _Levels(NamedTuple):
    """A quantised update: a level stands for (|level| + shift) * step, in tensor i halved ``finer[i]`` times."""

    levels: NDArray[np.int16]
    step: np.float32
    finer: list[int]
    one: float
    more: float


def _tensors(spec: Spec) -> int:
    """How many tensors are not empty."""
    return sum(t.size > 0 for t in spec)


def _runs(spec: Spec) -> Iterator[tuple[int, int]]:
    """Where each tensor that is not empty starts and stops in the flattened update."""
    at = 0
    for t in spec:
        if t.size:
            yield at, at + t.size
        at += t.size


def _steps(
    runs: Sequence[tuple[int, int]], step: np.float32, finer: Sequence[int]
) -> Iterator[tuple[tuple[int, int], np.float32]]:
    """Neighbouring tensors of the same step together, with it."""
    at = 0
    while at < len(runs):
        to = at
        while to + 1 < len(runs) and finer[to + 1] == finer[at]:
            to += 1
        yield (runs[at][0], runs[to][1]), np.ldexp(step, -finer[at])
        at = to + 1


def _values(made: _Levels, spec: Spec) -> NDArray[np.float32]:
    x = np.empty(spec.size, np.float32)
    if not made.step:
        x.fill(0)
        return x
    for (start, stop), own in _steps(list(_runs(spec)), made.step, made.finer):
        kernels.values(made.levels[start:stop], float(own), made.one, made.more, x[start:stop])
    return x


def _lost(x: NDArray[np.float32], made: _Levels, runs: Sequence[tuple[int, int]]) -> float:
    """The energy of what is lost of ``x``, tensor by tensor as in ``Loss.of``."""
    lost = []
    for (start, stop), times in zip(runs, made.finer, strict=True):
        own = float(np.ldexp(made.step, -times))
        lost.append(kernels.lost(x[start:stop], made.levels[start:stop], own, made.one, made.more))
    return math.fsum(lost)


def _read_halvings(data: Bytes, at: int, blank: list[int], step: np.float32) -> tuple[list[int], int]:
    """The halvings, and where the levels begin. Raises DecodeError."""
    width = data[at] if len(data) > at else 0
    if not 1 <= width <= _width(MOST_HALVINGS):
        raise DecodeError(f"Expected halvings of 1 to {_width(MOST_HALVINGS)} bits, got {width}.")
    end = at + 1 + bits.packed_size(len(blank), width)
    finer = [int(times) for times in bits.unpack(data[at + 1 : end], width, len(blank))]
    largest = max(finer, default=0)
    if _width(largest) != width or largest > _most_halvings(float(step)):
        raise DecodeError(f"Expected halvings that need {width} bits and leave a step of sensible size.")
    return finer, end


def _multiples(x: NDArray[np.float32]) -> tuple[float, NDArray[np.int16]] | None:
    """The largest power of two of which all numbers are whole multiples, and these; 0 for zeros; None if there is none
    small enough."""
    largest = float(np.abs(x).max(initial=0))
    if largest == 0:
        return 0.0, np.zeros(x.size, np.int16)
    if not _SMALLEST < largest <= _LARGEST:
        return None
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 24)  # no finer bit can be in the largest
    multiples = x.astype(np.float64) / unit
    whole = multiples.astype(np.int64)
    if not np.array_equal(whole, multiples):
        return None
    together = int(np.bitwise_or.reduce(np.abs(whole)))
    zeros = (together & -together).bit_length() - 1
    levels = whole >> zeros
    return None if np.abs(levels).max() > LIMIT else (unit * 2.0**zeros, levels.astype(np.int16))


def _most_halvings(step: float) -> int:
    """How often a step may be halved: not below the smallest that a receiver takes."""
    return min(MOST_HALVINGS, math.frexp(step)[1] - math.frexp(_SMALLEST / 2)[1])


def _rounded(step: float, ladder: bool) -> np.float32:
    """A step as it travels: a power of two, or a number with 8 bits of mantissa."""
    mantissa, exponent = math.frexp(step)
    if ladder:
        return np.float32(math.ldexp(1.0, exponent - (mantissa < math.sqrt(0.5))))
    return np.float32(math.ldexp(round(mantissa * 256), exponent - 8))


def _hint(context: Context, spec: Spec) -> NDArray[np.int8] | None:
    """Where the newest download changed the model by more than half, 2 and 5 times its root mean square: -3 to 3."""
    if context.step is None or not spec.size or [t.name for t in spec] != list(context.step):
        return None
    x = flatten(context.step)
    unit = math.sqrt(kernels.sum_squares(x) / x.size)
    hint = np.zeros(x.size, np.int8)
    for share in (0.5, 2.0, 5.0):
        above = np.float32(share * unit)
        hint += x > above
        hint -= x < -above
    return hint


def _centroid(count: int, total: int) -> int:
    """The mean of ``total / 65536`` over ``count``, in 1/256 from -1/2: a byte."""
    return min(255, max(0, 128 + (total // count + 128) // 256)) if count else 128


def _shift(byte: int) -> float:
    return byte / 256 - 0.5


def _byte(shift: float) -> int:
    return round((shift + 0.5) * 256)


def _width(number: int) -> int:
    return max(1, number.bit_length())


def _step_of(word: int) -> np.float32:
    step: np.float32 = np.uint32(word << 16).view(np.float32)
    if not _SMALLEST / 2 <= step <= _LARGEST:
        raise DecodeError("Expected a step that is a number of sensible size.")
    return step
