"""Entropy-coded scalar quantisation with a dead zone: the best single family for updates, from 4 bits per parameter
down to 0.02 (Sullivan 1996, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables").

One step for the whole update, ``rate`` times its root mean square: small tensors and quiet layers get fewer bits by
themselves, as reverse water-filling would give them. A number becomes ``trunc(|x| / step + 1/3)`` with its sign, so that
zero takes the widest cell; the integers go through the entropy stage. What a level stands for is the mean of what fell
into it (its centroid), told in a byte each for level 1 and for all above.

With ``ladder`` the step is a power of two and a level stands for itself: sums of many such updates are exact in
float32, whatever their order, and a difference of two sums is again a whole number of steps. Downloads are made so.

Payload: the step (a bfloat16; 0: nothing but zeros, and nothing follows), the two centroids unless ``ladder``, the
levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

LIMIT: Final = 32767
_ROUND: Final = np.float32(1 / 3)
_LANES, _BLOCK = 16, 1 << 16


@dataclass(frozen=True)
class Ecsq(Stage):
    """Step = ``rate`` times the root mean square, dead zone, entropy coding; ``ladder``: steps are powers of two."""

    rate: float = 3.0
    ladder: bool = False
    model: entropy.Model = "context"
    id: ClassVar[str] = "ecsq"

    def __post_init__(self) -> None:
        if not 2**-8 <= self.rate <= 2**8:
            raise CodecError(f"Expected a rate from 1/256 to 256, got {self.rate} (ecsq.rate).")

    @property
    def unbiased(self) -> bool:
        """Small numbers become zero."""
        return False

    @property
    def contractive(self) -> bool:
        """Whatever is not zeroed comes nearer."""
        return True

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Step, centroids, levels."""
        x = flatten(tensors)
        step = self._step(x)
        if step == 0:
            return Wire(b"\0\0", {}), state
        scaled = np.minimum(np.abs(x) * np.float32(1 / step), np.float32(LIMIT))
        levels = (scaled + _ROUND).astype(np.int32)
        head = _bf16_bytes(step)
        if not self.ladder:
            head += bytes((_centroid(scaled, levels, levels == 1), _centroid(scaled, levels, levels > 1)))
        np.negative(levels, out=levels, where=x < 0)
        return Wire(head + entropy.encode(levels, Spec.of(tensors), LIMIT, self.model), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Raises DecodeError."""
        head = 2 if self.ladder else 4
        if wire.side == b"\0\0":
            return unflatten(np.zeros(spec.size, np.float32), spec), state
        if len(wire.side) < head:
            raise DecodeError(f"Expected a step and centroids of 'ecsq', got {len(wire.side)} bytes.")
        step = _bf16(bytes(wire.side[:2]))
        levels = entropy.decode(wire.side[head:], spec, LIMIT, self.model)
        x = levels.astype(np.float32)
        if not self.ladder:
            one, more = (np.float32(b / 256 - 0.5) for b in wire.side[2:4])
            shift = np.where(np.abs(levels) == 1, one, more)
            x += np.where(levels == 0, np.float32(0), np.copysign(shift, shift * levels))
        return unflatten(x * step, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """The dead zone reaches to 2/3 of a step, which is the farthest that a number is moved."""
        x = flatten(tensors)
        step = float(self._step(x))
        return float(np.sum(np.minimum(np.abs(x.astype(np.float64)), 2 / 3 * step * (1 + 1e-5)) ** 2))

    def max_bytes(self, spec: Spec) -> int:
        """Step, centroids, and levels as they are."""
        return 4 + entropy.max_bytes(spec, LIMIT)

    def _step(self, x: NDArray[np.float32]) -> np.float32:
        want = self.rate * rms(x)
        if not want > 2.0**-100:
            return np.float32(0)
        mantissa, exponent = math.frexp(want)
        if self.ladder:
            return np.float32(math.ldexp(1.0, exponent - (mantissa < math.sqrt(0.5))))
        return np.float32(math.ldexp(round(mantissa * 256), exponent - 8))


def rms(x: NDArray[np.float32]) -> float:
    """Root mean square, in an order of sums that the kernels keep too."""
    lanes = np.zeros(_LANES)
    for at in range(0, x.size, _BLOCK):
        block = np.zeros(-(-min(_BLOCK, x.size - at) // _LANES) * _LANES)
        block[: x[at : at + _BLOCK].size] = x[at : at + _BLOCK]
        lanes += np.add.reduce(np.square(block).reshape(-1, _LANES), axis=0)
    width = _LANES
    while width > 1:
        width //= 2
        lanes = lanes[:width] + lanes[width:]
    return math.sqrt(float(lanes[0]) / x.size) if x.size else 0.0


def _centroid(scaled: NDArray[np.float32], levels: NDArray[np.int32], where: NDArray[np.bool_]) -> int:
    """Mean of scaled - level over ``where``, in 1/256 from -1/2, as a sum of integers, which has no order."""
    count = int(np.count_nonzero(where))
    if not count:
        return 128
    total = int(((scaled[where] - levels[where]) * np.float32(65536)).astype(np.int64).sum())
    return min(255, max(0, 128 + (total // count + 128) // 256))


def _bf16_bytes(step: np.float32) -> bytes:
    return (int(np.float32(step).view(np.uint32)) >> 16).to_bytes(2, "little")


def _bf16(data: bytes) -> np.float32:
    step = np.uint32(int.from_bytes(data, "little") << 16).view(np.float32)
    if not 2.0**-100 <= step <= 2.0**100:
        raise DecodeError("Expected a step that is a normal number.")
    return step
