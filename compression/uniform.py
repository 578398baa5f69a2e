"""Uniform quantisation to 1..8 bits with a symmetric scale (Alistarh et al. 2017, "QSGD", with the maximum for the
norm).

A number x becomes an integer q with ``x ≈ q * scale``. From 2 bits on, q runs from -L to L with ``L = 2**(bits-1) -
1`` and ``scale = max|x| / L``; it travels as q + L. One bit has only q = -1 and 1: deterministic, it is the sign and
the scale the mean magnitude, which leaves the least squared error (Bernstein et al. 2018; Karimireddy et al. 2019);
stochastic, the scale is the largest magnitude. Deterministic rounding is to nearest, ties to even. Stochastic
rounding goes up with a probability equal to the fraction, which makes it unbiased.

Payload: the scales (float32, one per group: a tensor, or a slice of its first axis), then all integers, packed.
Decoding is one multiplication of an integer by a scale, so that every machine decodes the same bits. Scales too small
to be normal numbers count as zero, because some processors flush them; too large ones, whose product would overflow,
are never sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Array, Spec, Tensors, TensorSpec, unflatten

_TINY: Final = np.finfo(np.float32).tiny
_HUGE: Final = np.finfo(np.float32).max


@dataclass(frozen=True)
class Uniform(Stage):
    """``bits`` bits per parameter and a scale ``per`` tensor or channel; ``stochastic`` rounding is unbiased."""

    bits: int = 8
    stochastic: bool = False
    per: Literal["tensor", "channel"] = "tensor"
    id: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise CodecError(f"Expected bits from 1 to 8, got {self.bits} (uniform.bits).")
        if self.per not in ("tensor", "channel"):
            raise CodecError(f"Expected tensor or channel, got '{self.per}' (uniform.per).")

    @property
    def unbiased(self) -> bool:
        """If rounding is stochastic."""
        return self.stochastic

    @property
    def keeps(self) -> float:
        """Beside one large number all others may be lost; stochastic rounding may err by more than there was."""
        return -1.0 if self.stochastic else 0.0

    @property
    def levels(self) -> int:
        """Largest integer q."""
        return max(1, (1 << (self.bits - 1)) - 1)

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Scales, then packed integers."""
        spec = Spec.of(tensors)
        codes = np.empty(spec.size, np.uint8)
        scales = []
        for t, at in _placed(spec):
            x = tensors[t.name].reshape(self._grouped(t))
            scale = self._scale(x)
            codes[at : at + t.size] = self._round(x, scale, rng).reshape(-1)
            scales.append(scale.astype("<f4").tobytes())
        return Wire(b"".join(scales) + bits.pack(codes, self.bits), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Integers times scales. Raises DecodeError for another length, an unused integer, or an impossible scale."""
        head = 4 * self._groups(spec)
        if len(wire.side) != self.max_bytes(spec):
            raise DecodeError(f"Expected {self.max_bytes(spec)} bytes of '{self.text}', got {len(wire.side)}.")
        scales = np.frombuffer(wire.side[:head], "<f4")
        if not np.all((scales == 0) & ~np.signbit(scales) | (scales >= _TINY) & (scales <= self._largest_scale)):
            raise DecodeError("Expected finite, non-negative scales whose products are finite.")
        codes = bits.unpack(wire.side[head:], self.bits, spec.size)
        if self.bits > 1 and codes.size and int(codes.max()) > 2 * self.levels:
            raise DecodeError(f"Expected integers up to {2 * self.levels}, got {int(codes.max())}.")
        step, low = (2, 1) if self.bits == 1 else (1, self.levels)
        vector = np.empty(spec.size, np.float32)
        group = 0
        for t, at in _placed(spec):
            rows, columns = self._grouped(t)
            out = vector[at : at + t.size].reshape(rows, columns)
            np.multiply(codes[at : at + t.size].reshape(rows, columns), np.float32(step), out=out)
            out -= np.float32(low)
            out *= scales[group : group + rows, None]
            group += rows
        return unflatten(vector, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """n * scale**2 / 4 per group; for one bit the squared norm, or n * scale**2 if stochastic."""
        total = 0.0
        for t in Spec.of(tensors):
            x = tensors[t.name].reshape(self._grouped(t)).astype(np.float64)
            top = np.abs(x).max(axis=1, initial=0)
            if self.bits > 1:
                total += float(np.sum(x.shape[1] * (top / self.levels) ** 2 / 4))
            else:
                total += float(np.sum(x.shape[1] * top**2) if self.stochastic else np.sum(x**2))
            total += t.size * float(self.levels * _TINY) ** 2
        return total * (1 + 1e-5)

    def max_bytes(self, spec: Spec) -> int:
        """Exactly: 4 bytes per group and ``bits`` bits per parameter."""
        return 4 * self._groups(spec) + bits.packed_size(spec.size, self.bits)

    @property
    def _largest_scale(self) -> np.float32:
        return np.float32(np.nextafter(_HUGE / np.float32(self.levels), np.float32(0)))

    def _grouped(self, t: TensorSpec) -> tuple[int, int]:
        """The tensor as (groups, elements per group)."""
        rows = t.shape[0] if self.per == "channel" and len(t.shape) >= 2 else 1
        return rows, t.size // rows if rows else 0

    def _groups(self, spec: Spec) -> int:
        return sum(self._grouped(t)[0] for t in spec)

    def _scale(self, x: Array) -> NDArray[np.float32]:
        """float32[groups]."""
        top = np.maximum(x.max(axis=1, initial=0), -x.min(axis=1, initial=0))
        if self.bits == 1 and not self.stochastic:
            top = _mean_magnitude(x, top)
        scale = np.minimum(top / np.float32(self.levels), self._largest_scale)
        return np.where(scale < _TINY, np.float32(0), scale)

    def _round(self, x: Array, scale: NDArray[np.float32], rng: Stream) -> Array:
        """Codes 0..2L (0..1 for one bit) as float32 or bool, of the shape of ``x``."""
        if self.bits == 1 and not self.stochastic:
            return x >= 0
        ratio = np.divide(x, np.where(scale == 0, np.float32(1), scale)[:, None])
        np.clip(ratio, -self.levels, self.levels, out=ratio)
        if not self.stochastic:
            return np.rint(ratio, out=ratio) + np.float32(self.levels)
        chance = rng.uniform(x.size).reshape(x.shape)
        if self.bits == 1:
            return chance < (ratio + np.float32(1)) * np.float32(0.5)
        down = np.floor(ratio)
        return down + (chance < ratio - down) + np.float32(self.levels)


def _placed(spec: Spec) -> Iterator[tuple[TensorSpec, int]]:
    """Each tensor with the position of its first element."""
    at = 0
    for t in spec:
        yield t, at
        at += t.size


def _mean_magnitude(x: Array, top: NDArray[Any]) -> NDArray[np.float32]:
    """float32[rows]: mean of |x| per row, to 30 bits of the row's largest. A sum of integers, which has no order."""
    unit = np.where(top == 0, 1.0, top.astype(np.float64)) / 2.0**30
    total = np.rint(np.abs(x) / unit[:, None]).astype(np.int64).sum(axis=1)
    return np.asarray(total / max(1, x.shape[1]) * unit, np.float32)
