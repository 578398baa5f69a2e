"""Four and eight bits per parameter with a scale per block: ``nf4`` and ``fp8``, the number formats of other tools.

``nf4``: the 16 quantiles of the normal distribution of NormalFloat4 (Dettmers et al. 2023, "QLoRA", appendix E), times
the block's largest magnitude. ``fp8``: e4m3, sign, 4 bits of exponent, 3 of mantissa (Micikevicius et al. 2022, "FP8
Formats for Deep Learning"), times a scale that takes the block's largest magnitude to e4m3's largest number, 448.
Both round to the nearest, fp8 to even between two, and saturate.

Deviations from the papers: scales are bfloat16, rounded up (1/128 of the range goes unused), without QLoRA's second
quantisation of the scales; blocks end with their tensor. Payload: the scales, one per block, then all codes, packed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits, scales
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

_NF4: Final = np.array(
    (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
    np.float32,
)
_NF4_BETWEEN: Final = (_NF4[1:] + _NF4[:-1]) * np.float32(0.5)
_MAGNITUDE, _NAN = 0x7F, 0x7F
#: e4m3 by code, without sign: below 8 multiples of 2**-9, then (8 + mantissa) * 2**(exponent - 10).
_E4M3: Final = np.array([(8 * (c > 7) + c % 8) * 2.0 ** (max(1, c >> 3) - 10) for c in range(128)], np.float32)
_E4M3_NORMAL: Final = np.float32(2.0**-6)
_DROPPED: Final = 20  # mantissa bits of a float32 that e4m3 has no room for


@dataclass(frozen=True)
class _BlockFloat(Stage):
    """Codes of ``_bits`` bits times a scale per ``block`` numbers."""

    block: int

    _bits: ClassVar[int]
    #: Largest decoded number of scale 1; largest scale; largest error of scale 1, absolute and relative to the number.
    _top: ClassVar[float]
    _largest: ClassVar[float]
    _absolute: ClassVar[float]
    _relative: ClassVar[float]
    unbiased: ClassVar[bool] = False  #: rounding is deterministic
    keeps: ClassVar[float] = 0.0  #: beside one large number all others of a block may be lost

    def __post_init__(self) -> None:
        if self.block < 1:
            raise CodecError(f"Expected a block of 1 or more numbers, got {self.block} ({self.id}.block).")

    @property
    def block_size(self) -> int:
        """``block``."""
        return self.block

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Scales, then packed codes."""
        x = flatten(tensors)
        found, lengths = self._scales(x, Spec.of(tensors))
        ratio = x / np.repeat(np.where(found == 0, np.float32(np.inf), found), lengths)
        np.clip(ratio, -self._top, self._top, out=ratio)
        return Wire(scales.to_bytes(found) + bits.pack(self._codes(ratio), self._bits), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Raises DecodeError for another length, an impossible scale, or a code that is no number."""
        at, lengths = scales.blocks(spec, self.block)
        found = scales.from_bytes(wire.side, at.size, self._largest)
        x = self._values(bits.unpack(wire.side[scales.WIDTH * at.size :], self._bits, spec.size))
        x *= np.repeat(found, lengths)
        return unflatten(x, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """Half the gap between two codes, never more than the number; and what saturation cuts off."""
        x = flatten(tensors)
        found, lengths = self._scales(x, Spec.of(tensors))
        scale, size = np.repeat(found.astype(np.float64), lengths), np.abs(x).astype(np.float64)
        moved = np.where(scale == 0, size, np.minimum(size, np.maximum(self._absolute * scale, self._relative * size)))
        return float(np.sum(np.square(moved * (1 + 1e-5) + np.maximum(size - self._top * scale, 0))))

    def max_bytes(self, spec: Spec) -> int:
        """Exactly: 2 bytes per block, and the codes."""
        return scales.WIDTH * scales.blocks(spec, self.block)[0].size + bits.packed_size(spec.size, self._bits)

    def _scales(self, x: NDArray[np.float32], spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Each block's scale, and how many numbers it has."""
        at, lengths = scales.blocks(spec, self.block)
        tops = np.maximum.reduceat(np.abs(x), at).astype(np.float64) if at.size else np.zeros(0)
        return scales.rounded_up(tops / self._top, self._largest), lengths

    @abstractmethod
    def _codes(self, ratio: NDArray[np.float32]) -> NDArray[Any]:
        """float32[n] within ``_top`` to codes [n]."""

    @abstractmethod
    def _values(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Codes [n] to a new float32[n]. Raises DecodeError."""


@dataclass(frozen=True)
class Fp8(_BlockFloat):
    """8-bit floating point (e4m3) with a scale for each ``block`` of numbers."""

    block: int = 128
    id: ClassVar[str] = "fp8"
    _bits: ClassVar[int] = 8
    _top: ClassVar[float] = 448.0
    _largest: ClassVar[float] = 2.0**119
    _absolute: ClassVar[float] = 2.0**-10
    _relative: ClassVar[float] = 2.0**-4

    def _codes(self, ratio: NDArray[np.float32]) -> NDArray[Any]:
        size = np.abs(ratio)
        pattern = size.view(np.uint32)
        half = np.uint32((1 << (_DROPPED - 1)) - 1) + (pattern >> np.uint32(_DROPPED) & np.uint32(1))
        normal = ((pattern + half) >> np.uint32(_DROPPED)) - np.uint32((127 - 7) << 3)
        codes = np.where(size < _E4M3_NORMAL, np.rint(size * np.float32(2.0**9)), normal).astype(np.uint8)
        return codes | (np.signbit(ratio).astype(np.uint8) << np.uint8(7))

    def _values(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        size = codes & np.uint8(_MAGNITUDE)
        if np.any(size == _NAN):
            raise DecodeError("Expected numbers in 'fp8', got NaN.")
        return np.asarray(np.where(codes > _MAGNITUDE, -_E4M3[size], _E4M3[size]))


@dataclass(frozen=True)
class Nf4(_BlockFloat):
    """4-bit quantiles of the normal distribution, times the largest magnitude of each ``block`` of numbers."""

    block: int = 64
    id: ClassVar[str] = "nf4"
    _bits: ClassVar[int] = 4
    _top: ClassVar[float] = 1.0
    _largest: ClassVar[float] = 2.0**127
    _absolute: ClassVar[float] = (1 - 0.6961928009986877) / 2
    _relative: ClassVar[float] = 0.0

    def _codes(self, ratio: NDArray[np.float32]) -> NDArray[Any]:
        return np.searchsorted(_NF4_BETWEEN, ratio).astype(np.uint8)

    def _values(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        return np.take(_NF4, codes)
