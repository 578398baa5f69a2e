"""Sums of integers modulo 2**bits: what secure aggregation adds without seeing (Kairouz, Liu, Steinke 2021, "The
Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation"; Chen et al. 2022, "The
Fundamental Price of Secure Aggregation in Differentially Private Federated Learning").

An update is scaled down to the length ``clip`` if it is longer, rotated at random
(``fedpress.compression.hadamard``), and a share ``density`` of the rotated numbers, the same for all by the shared
seed, is rounded at random to whole steps. These integers travel modulo 2**bits. Added modulo 2**bits they are the
payload of the sum, which decodes to the sum of the updates:

    added(codec, payloads, spec)    of up to ``clients`` payloads of one seed

A rotated number of an update of length c is sub-Gaussian with a deviation of at most c / sqrt(block size). It is cut
off at 5 of these, which happens to one in a million, and the step is such that ``clients`` numbers of that size just
fit: a sum never wraps around. The result is unbiased for updates within ``clip``, but for that one in a million.

Deviations from the papers: noise is added by ``fedpress.privacy``, not here; a subsample of rotated numbers in place
of Chen's sparse projection; plain random rounding, without Kairouz's rejection of roundings that lengthen an update.
Payload: the low 8 bits of all integers, then the others, each packed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits
from fedpress.compression.codec import Bytes, Context, State, Wire
from fedpress.compression.hadamard import block_size, rotate, rotate_back
from fedpress.compression.native import kernels
from fedpress.compression.randomk import draw
from fedpress.compression.sparse import Sparse
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

_DEVIATIONS: Final = 5
#: Mean square of what a sub-Gaussian number of deviation 1 has beyond 5: 4 (exp(-a**2/2) - a sqrt(2 pi) Q(a)).
_TAIL: Final = 6e-7
_LONGEST: Final = 2.0**60
_LOW: Final = 8
_NO_SPEC: Final = Spec(())


@dataclass(frozen=True)
class Modular(Sparse):
    """``bits`` per number of a rotated share ``density``; payloads of ``clients`` with norms up to ``clip`` add up."""

    density: float = 1.0
    bits: int = 8
    clip: float = 1.0
    clients: int = 1
    id: ClassVar[str] = "modular"
    commutes_with_sum: ClassVar[bool] = True
    unbiased: ClassVar[bool] = False  #: only of updates within ``clip``
    keeps: ClassVar[float] = -1.0  #: what is sent stands for what is not, and is scaled up for it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.bits <= 2 * _LOW:
            raise CodecError(f"Expected bits from 2 to {2 * _LOW}, got {self.bits} (modular.bits).")
        if not 1 / _LONGEST <= self.clip <= _LONGEST:
            raise CodecError(f"Expected a clip from 2**-60 to 2**60, got {self.clip} (modular.clip).")
        if not 1 <= self.clients < 1 << (self.bits - 1):
            raise CodecError(
                f"Expected 1 to {(1 << (self.bits - 1)) - 1} clients for {self.bits} bits, got {self.clients} "
                "(modular.clients): each needs a step of its own in the range."
            )

    def rest(self, spec: Spec) -> Spec:  # noqa: ARG002
        """Nothing is left."""
        return _NO_SPEC

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Packed integers."""
        x = rotate(_clipped(flatten(tensors), self.clip), context.seed)
        x = x[draw(context.seed, self.kept(x.size), x.size)]
        most = self._most
        ratio = np.clip(x / np.float32(self._step(Spec.of(tensors).size)), -most, most)
        down = np.floor(ratio)
        numbers = down.astype(np.int32) + (rng.uniform(x.size) < ratio - down)
        return Wire(self._packed(numbers), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Of one payload, or of a sum of payloads. Raises DecodeError on another length or padding that is not zero."""
        count = self.kept(spec.size)
        indices = draw(context.seed, count, spec.size)
        numbers = self._unpacked(wire.side, count)
        half = 1 << (self.bits - 1)
        numbers[numbers >= half] -= 2 * half
        x = np.zeros(spec.size, np.float32)
        unit = np.float32(self._step(spec.size) * spec.size / max(1, count))
        x[indices] = numbers.astype(np.float32) * unit
        return unflatten(rotate_back(x, context.seed), spec), state

    def added(self, payloads: Sequence[Bytes], spec: Spec) -> bytes:
        """The payload of the sum of what ``payloads``, up to ``clients`` of one context seed, hold.

        Raises DecodeError for a malformed one, CodecError for too many.
        """
        if len(payloads) > self.clients:
            raise CodecError(f"Expected at most {self.clients} payloads to add, got {len(payloads)} (modular.clients).")
        count = self.kept(spec.size)
        total = np.zeros(count, np.int32)
        for payload in payloads:
            total += self._unpacked(payload, count)
        return self._packed(total)

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean over seeds, of one payload: clipping, what is not sent, rounding, and the cut-off."""
        x = flatten(tensors)
        length, count = _length(x), self.kept(x.size)
        kept = min(length, self.clip)
        scale = x.size / max(1, count)
        rounding = scale * math.sqrt(count) * self._step(x.size) / 2
        parts = (
            max(0.0, length - self.clip),
            math.sqrt(max(0.0, scale - 1)) * kept,
            rounding,
            math.sqrt(scale * _TAIL * x.size / block_size(x.size)) * kept,
            1e-5 * length,
        )
        return sum(parts) ** 2

    def max_bytes(self, spec: Spec) -> int:
        """Exactly ``bits`` bits per number that is sent."""
        return sum(bits.packed_size(self.kept(spec.size), width) for width in self._widths)

    @property
    def _most(self) -> float:
        """Most steps that one sender's number may have before rounding: so many that all of them fit in the range."""
        return float(((1 << (self.bits - 1)) - 1) // self.clients)

    @property
    def _widths(self) -> tuple[int, int]:
        return min(self.bits, _LOW), max(0, self.bits - _LOW)

    def _step(self, size: int) -> float:
        return _DEVIATIONS * self.clip / math.sqrt(block_size(size)) / self._most

    def _packed(self, numbers: NDArray[np.int32]) -> bytes:
        low, high = self._widths
        kept = numbers & ((1 << self.bits) - 1)
        return bits.pack(kept & ((1 << low) - 1), low) + bits.pack(kept >> low, high)

    def _unpacked(self, data: Bytes, count: int) -> NDArray[np.int32]:
        """int32[count], from 0 to 2**bits - 1."""
        low, high = self._widths
        split, size = bits.packed_size(count, low), bits.packed_size(count, low) + bits.packed_size(count, high)
        if len(data) != size:
            raise DecodeError(f"Expected {size} bytes of '{self.text}', got {len(data)}.")
        numbers: NDArray[np.int32] = bits.unpack(data[:split], low, count).astype(np.int32)
        numbers |= bits.unpack(data[split:], high, count).astype(np.int32) << low
        return numbers


def _length(x: NDArray[np.float32]) -> float:
    return math.sqrt(kernels.sum_squares(x))


def _clipped(x: NDArray[np.float32], clip: float) -> NDArray[np.float32]:
    length = _length(x)
    return x if length <= clip else (x * (clip / length)).astype(np.float32)
