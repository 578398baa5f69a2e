"""Rotation and the best quantiser of 1 to 4 bits for normal numbers (Vargaftik et al. 2021, "DRIVE: One-bit Distributed
Mean Estimation"; 2022, "EDEN: Communication-Efficient and Robust Distributed Mean Estimation").

A randomised Hadamard rotation (``fedpress.compression.hadamard``) makes the numbers about normal, whatever they were.
Each then goes to the nearest of the 2**bits centroids that Lloyd and Max found for the normal distribution, and one
scale S per block is all that is said of the data. With x the rotated block and q its centroids, S = <x,x> / <x,q> makes
the result unbiased over seeds, and S = <x,q> / <q,q> leaves the least squared error, for ``ef``.

Unbiasedness is a theorem for uniformly random rotations only. One Hadamard round misses it by as much as the vector's
length for sparse vectors of any size; the unbiased scale therefore takes two rounds, and fewer than 64 parameters are
padded with zeros to 64. What bias is left could not be told from noise in 3000 seeds (1.4 % of the length at one bit,
48 to 1000 parameters, dense and sparse); two parameters alone had up to 6 %. Deviations from the papers: that, and
blocks.

Payload: the scales (float32, one per block; where the last two blocks overlap, the former's is for what is left of
it), then a centroid's number per rotated parameter, packed. The squared error is about 0.36, 0.12, 0.035, 0.0095 of the
squared length for 1 to 4 bits; unbiased 0.57, 0.13, 0.036, 0.0096.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.hadamard import LARGEST, cut_off, rotate, rotate_back, starts
from fedpress.compression.native import kernels
from fedpress.compression.sparse import squared_norm
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

#: Positive centroids of the standard normal distribution for 1 to 4 bits (Lloyd 1957; Max 1960), and their negatives.
_POSITIVE: Final[Mapping[int, tuple[float, ...]]] = {
    1: (0.79788456,),
    2: (0.45278003, 1.51041761),
    3: (0.24509418, 0.75600528, 1.34390928, 2.1519457),
    4: (0.12839503, 0.3880483, 0.65675912, 0.94234046, 1.2562312, 1.61804639, 2.06901723, 2.73258957),
}
_CENTROIDS: Final = {b: np.array([-c for c in reversed(half)] + [*half], np.float32) for b, half in _POSITIVE.items()}
#: Mean squared error as a share of the squared norm, at most. Least squares: one bit by Khintchine's inequality with
#: Szarek's constant; more by half the widest cell and the tail of a sub-Gaussian number beyond the last centroid.
#: Unbiased: one bit as for uniform rotations (DRIVE, Theorem 2); more with a margin for the spread of <x,q>.
_MSE: Final[Mapping[int, float]] = {1: 0.5, 2: 0.57, 3: 0.22, 4: 0.12}
_UNBIASED: Final[Mapping[int, float]] = {1: 2.92, 2: 1.4, 3: 0.5, 4: 0.25}
#: Blocks of less are sent as zeros; no sender's scale is larger than the other.
_SMALLEST, _LARGEST_SCALE = 2.0**-100, 2.0**10 * LARGEST
_FEWEST: Final = 64
_UNIT: Final = 2**20


@dataclass(frozen=True)
class Rotation(Stage):
    """Random rotation, then ``bits`` 1 to 4 bits each by Lloyd-Max; ``scale`` is unbiased, or of least error (mse)."""

    bits: int = 1
    scale: Literal["unbiased", "mse"] = "unbiased"
    id: ClassVar[str] = "rotation"

    def __post_init__(self) -> None:
        if self.bits not in _CENTROIDS:
            raise CodecError(f"Expected bits from 1 to 4, got {self.bits} (rotation.bits).")
        if self.scale not in ("unbiased", "mse"):
            raise CodecError(f"Expected unbiased or mse, got '{self.scale}' (rotation.scale).")

    @property
    def unbiased(self) -> bool:
        """With the scale that makes it so."""
        return self.scale == "unbiased"

    @property
    def keeps(self) -> float:
        """Half, in the mean: a sum with random signs is as large as its length often enough (Khintchine 1923; the
        constant is Szarek's, 1976). Unbiased scales may err by more than there was."""
        return 0.5 if self.scale == "mse" else -1.0

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Scales, then packed codes."""
        x = flatten(tensors)
        x = rotate(np.pad(x, (0, _padded(x.size) - x.size)), context.seed, self._rounds)
        codes = np.empty(x.size, np.uint8)
        scales = [self._quantise(x[at:end], codes[at:end]) for at, end in _segments(x.size)]
        return Wire(np.array(scales, "<f4").tobytes() + bits.pack(codes, self.bits), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Centroids times scales, rotated back. Raises DecodeError for another length or an impossible scale."""
        if len(wire.side) != self.max_bytes(spec):
            raise DecodeError(f"Expected {self.max_bytes(spec)} bytes of '{self.text}', got {len(wire.side)}.")
        size = _padded(spec.size)
        segments = _segments(size)
        scales = np.frombuffer(wire.side[: 4 * len(segments)], "<f4")
        if not np.all((scales == 0) & ~np.signbit(scales) | (scales >= _SMALLEST / 2) & (scales <= _LARGEST_SCALE)):
            raise DecodeError("Expected finite, non-negative scales of sensible size.")
        x = _CENTROIDS[self.bits][bits.unpack(wire.side[4 * len(segments) :], self.bits, size)]
        for (at, end), scale in zip(segments, scales, strict=True):
            x[at:end] *= scale
        return unflatten(rotate_back(x, context.seed, self._rounds)[: spec.size], spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean over seeds: a share of the squared norm. Proven for mse and whole blocks; see ``_MSE``."""
        x = flatten(tensors)
        share = (_UNBIASED if self.unbiased else _MSE)[self.bits]
        quantised = math.sqrt(share * squared_norm(tensors) + _padded(x.size) * _SMALLEST**2)
        return (quantised * (1 + 1e-4) + math.sqrt(cut_off(x))) ** 2

    def max_bytes(self, spec: Spec) -> int:
        """Exactly: 4 bytes per block and ``bits`` bits per parameter (of at least 64)."""
        size = _padded(spec.size)
        return 4 * len(starts(size)) + bits.packed_size(size, self.bits)

    @property
    def _rounds(self) -> int:
        return 2 if self.unbiased else 1

    def _quantise(self, x: NDArray[np.float32], codes: NDArray[np.uint8]) -> float:
        """The codes of a block, and its scale. Sums are of integers, which have no order."""
        centroids = _CENTROIDS[self.bits]
        rms = np.float32(math.sqrt(kernels.sum_squares(x) / x.size))
        if rms < _SMALLEST:
            codes.fill(0)
            return 0.0
        z = x / rms
        codes[:] = np.searchsorted((centroids[1:] + centroids[:-1]) * np.float32(0.5), z, side="right")
        levels = np.rint(np.abs(centroids) * _UNIT).astype(np.int64)[codes]
        across = int(np.sum(np.rint(np.abs(z) * np.float32(_UNIT)).astype(np.int64) * levels))
        if self.unbiased:
            return float(rms) * x.size * _UNIT**2 / across
        return float(rms) * across / int(np.sum(levels * levels))


def _padded(size: int) -> int:
    return max(size, _FEWEST) if size else 0


def _segments(size: int) -> list[tuple[int, int]]:
    """Where each block starts, and where it or what no later block covers ends."""
    at = starts(size)
    return list(zip(at, [*at[1:], size][: len(at)], strict=True))
