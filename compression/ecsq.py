"""Entropy-coded scalar quantisation with a dead zone: the best single family for updates, from 4 bits per parameter
down to 0.02 (Sullivan 1996, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables").

One step for the whole update, ``rate`` times its root mean square: small tensors and quiet layers get fewer bits by
themselves, as reverse water-filling would give them. A number becomes ``trunc(|x| / step + 1/3)`` with its sign, so
that zero takes the widest cell; the integers go through the entropy stage. What a level stands for is the mean of what
fell into it (its centroid), told in a byte each for level 1 and for all above.

With ``ladder`` the step is a power of two and a level stands for itself: sums of many such updates are exact in
float32, whatever their order, and a difference of two sums is again a whole number of steps. Downloads are made so.

Payload: the step (a bfloat16; 0: nothing but zeros, and nothing follows), the two centroids unless ``ladder``, the
levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.native import kernels
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

LIMIT: Final = 32767
_NOTHING: Final = b"\0\0"
#: Steps outside these count as nothing, or are made as large as that: no product of a level can overflow.
_SMALLEST, _LARGEST = 2.0**-100, 2.0**112


@dataclass(frozen=True)
class Ecsq(Stage):
    """Step = ``rate`` times the root mean square, dead zone, entropy coding; ``ladder``: steps are powers of two."""

    rate: float = 3.0
    ladder: bool = False
    model: entropy.Model = "auto"
    id: ClassVar[str] = "ecsq"
    unbiased: ClassVar[bool] = False  #: small numbers become zero
    contractive: ClassVar[bool] = True  #: whatever is not zeroed comes nearer

    def __post_init__(self) -> None:
        if not 2**-8 <= self.rate <= 2**8:
            raise CodecError(f"Expected a rate from 1/256 to 256, got {self.rate} (ecsq.rate).")

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Step, centroids, levels."""
        return self._sent(tensors, context).wire, state

    def echo(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State, Tensors]:  # noqa: ARG002
        """As ``encode``; the levels need no decoding."""
        sent = self._sent(tensors, context)
        return sent.wire, state, _values(sent.levels, sent.step, sent.one, sent.more, Spec.of(tensors))

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Raises DecodeError."""
        head = 2 if self.ladder else 4
        if wire.side == _NOTHING:
            return unflatten(np.zeros(spec.size, np.float32), spec), state
        if len(wire.side) < head:
            raise DecodeError(f"Expected a step and centroids of 'ecsq', got {len(wire.side)} bytes.")
        step = _step_of(bytes(wire.side[:2]))
        one, more = (0.0, 0.0) if self.ladder else (_shift(byte) for byte in wire.side[2:4])
        levels = entropy.decode(wire.side[head:], spec, LIMIT, partial(_hint, context, spec))
        return _values(levels, step, one, more, spec), state

    def exact(self, tensors: Tensors) -> bytes | None:
        """A payload that decodes to exactly these tensors, if all are whole multiples of one power of two (and of no
        more than 32767 of it); else None. Of a ``ladder`` only: centroids would move them."""
        x = flatten(tensors)
        largest = float(np.abs(x).max(initial=0))
        if not self.ladder or not largest <= _LARGEST:
            return None
        if largest == 0:
            return _NOTHING
        unit = math.ldexp(1.0, math.frexp(largest)[1] - 24)  # no finer bit can be in the largest
        multiples = x.astype(np.float64) / unit
        whole = multiples.astype(np.int64)
        together = int(np.bitwise_or.reduce(np.abs(whole)))
        zeros = (together & -together).bit_length() - 1
        levels, step = whole >> zeros, unit * 2.0**zeros
        if not np.array_equal(whole, multiples) or np.abs(levels).max() > LIMIT or step < _SMALLEST / 2:
            return None
        return _bytes_of(np.float32(step)) + entropy.encode(levels, Spec.of(tensors), LIMIT, self.model)

    def error_bound(self, tensors: Tensors) -> float:
        """Nothing moves farther than 2/3 of a step, to where its dead zone ends, or than the largest level is off."""
        x = np.abs(flatten(tensors).astype(np.float64))
        step = float(self._step(flatten(tensors)))
        moved = np.minimum(x, np.maximum(2 / 3 * step * (1 + 1e-5), x - LIMIT * step)) if step else x
        return float(np.sum(moved**2))

    def max_bytes(self, spec: Spec) -> int:
        """Step, centroids, and levels as they are."""
        return 4 + entropy.max_bytes(spec, LIMIT)

    def _sent(self, tensors: Tensors, context: Context) -> _Sent:
        x, spec = flatten(tensors), Spec.of(tensors)
        levels = np.empty(spec.size, np.int16)
        step = self._step(x)
        if step == 0:
            levels.fill(0)
            return _Sent(Wire(_NOTHING, {}), levels, step, 0.0, 0.0)
        ones, one_sum, larger, larger_sum = kernels.quantise(x, float(np.float32(1 / step)), levels)
        head, one, more = _bytes_of(step), 0.0, 0.0
        if not self.ladder:
            centroids = bytes((_centroid(ones, one_sum), _centroid(larger, larger_sum)))
            head, (one, more) = head + centroids, (_shift(byte) for byte in centroids)
        coded = entropy.encode(levels, spec, LIMIT, self.model, partial(_hint, context, spec))
        return _Sent(Wire(head + coded, {}), levels, step, one, more)

    def _step(self, x: NDArray[np.float32]) -> np.float32:
        want = self.rate * math.sqrt(kernels.sum_squares(x) / x.size) if x.size else 0.0
        if not want > _SMALLEST:
            return np.float32(0)
        mantissa, exponent = math.frexp(min(want, _LARGEST))
        if self.ladder:
            return np.float32(math.ldexp(1.0, exponent - (mantissa < math.sqrt(0.5))))
        return np.float32(math.ldexp(round(mantissa * 256), exponent - 8))


class _Sent(NamedTuple):
    """A payload and what a receiver makes of it: (|level| + shift) * step."""

    wire: Wire
    levels: NDArray[np.int16]
    step: np.float32
    one: float
    more: float


def _values(levels: NDArray[np.int16], step: np.float32, one: float, more: float, spec: Spec) -> Tensors:
    x = np.empty(spec.size, np.float32)
    kernels.values(levels, float(step), one, more, x)
    return unflatten(x, spec)


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


def _bytes_of(step: np.float32) -> bytes:
    return (int(np.float32(step).view(np.uint32)) >> 16).to_bytes(2, "little")


def _step_of(data: bytes) -> np.float32:
    step: np.float32 = np.uint32(int.from_bytes(data, "little") << 16).view(np.float32)
    if not _SMALLEST / 2 <= step <= _LARGEST:
        raise DecodeError("Expected a step that is a number of sensible size.")
    return step
