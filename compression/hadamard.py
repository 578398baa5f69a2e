"""Randomised Hadamard rotation: spreads every number over all others, so that what is left is about normal, with no
outliers (Ailon and Chazelle 2009, "The Fast Johnson-Lindenstrauss Transform"; Suresh et al. 2017, "Distributed Mean
Estimation with Limited Communication").

A block of B = 2**m numbers has its signs flipped at random, by the seed that both ends share, and goes through the
Walsh-Hadamard transform: multiplied by float32(2**(-m/2)), then ``a, b -> a + b, a - b`` for all pairs at a distance of
B/2, B/4, ..., 1. That is orthonormal, its own inverse but for the signs, and nothing but single IEEE additions in a
fixed order: all platforms agree to the bit.

Nothing is padded, at any size. Blocks have 2**16 numbers, or the largest power of two that there is room for; what is
left at the end is covered by a last block that overlaps the one before. The signs: one bit per number, block after
block, of ``Stream.of("hadamard", seed)``, its 64-bit words read from the lowest bit on (a block of fewer than 64 takes
a word). One round makes all but sparse vectors normal; a second round these too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import squared_norm
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, TensorSpec, flatten, unflatten

ROTATED: Final = "rotated"
#: Larger numbers are cut off before they are rotated, so that no sum can overflow.
LARGEST: Final = 2.0**100
_WIDEST: Final = 16
_WORD: Final = 64
#: Of one round, there and back: at most 2 * 18 roundings per number and way, each of half a unit in the last place.
_ROUNDING: Final = 2.0**-17
_UNDERFLOW: Final = 2.0**-140


@dataclass(frozen=True)
class Hadamard(Stage):
    """Random rotation by the shared seed, and back; leaves as many numbers as came."""

    rounds: int = 1
    id: ClassVar[str] = "hadamard"
    commutes_with_sum: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True  #: a rotation is undone
    keeps: ClassVar[float] = 0.999  #: nothing but rounding is lost

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 3:
            raise CodecError(f"Expected 1 to 3 rounds, got {self.rounds} (hadamard.rounds).")

    def rest(self, spec: Spec) -> Spec:
        """One tensor, ``rotated``, of all parameters."""
        return Spec((TensorSpec(ROTATED, (spec.size,)),))

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: nothing."""
        return Wire(b"", {ROTATED: rotate(flatten(tensors), context.seed, self.rounds)}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Raises DecodeError if there is a side."""
        if len(wire.side):
            raise DecodeError(f"Expected no bytes of its own from 'hadamard', got {len(wire.side)}.")
        return unflatten(rotate_back(wire.rest[ROTATED], context.seed, self.rounds), spec), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """The length is kept: the j-th largest of any seed's numbers has at most a share 1/sqrt(j) of it."""
        longest = min(math.sqrt(squared_norm(tensors)) * (1 + self.rounds * _ROUNDING), float(np.finfo(np.float32).max))
        return {ROTATED: (longest / np.sqrt(np.arange(1, Spec.of(tensors).size + 1))).astype(np.float32)}

    def error_bound(self, tensors: Tensors) -> float:
        """Rounding, and what was cut off."""
        x = flatten(tensors)
        rounding = self.rounds * (_ROUNDING * math.sqrt(squared_norm(tensors)) + _UNDERFLOW * math.sqrt(x.size))
        return (rounding + math.sqrt(cut_off(x))) ** 2

    def max_bytes(self, spec: Spec) -> int:  # noqa: ARG002
        """No bytes of its own."""
        return 0


def rotate(vector: NDArray[np.float32], seed: int, rounds: int = 1) -> NDArray[np.float32]:
    """float32[n], rotated: a new vector. Magnitudes above ``LARGEST`` are cut off there."""
    x = np.clip(vector, np.float32(-LARGEST), np.float32(LARGEST))
    for block, flips in _blocks(x, seed, rounds):
        _flip(block, flips)
        _transform(block)
    return x


def rotate_back(vector: NDArray[np.float32], seed: int, rounds: int = 1) -> NDArray[np.float32]:
    """Inverse of ``rotate``; of numbers that no sender leaves, infinity or NaN may come."""
    x = np.array(vector, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for block, flips in reversed(_blocks(x, seed, rounds)):
            _transform(block)
            _flip(block, flips)
    return x


def starts(size: int) -> list[int]:
    """Where the blocks of one round start, in the order in which they are rotated; all have ``block_size(size)``."""
    block = block_size(size)
    return [*range(0, size - block + 1, block), *([size - block] if size % block else [])] if size else []


def block_size(size: int) -> int:
    """Numbers in a block of a vector of ``size``: a power of two, more than half of ``size`` or 65536."""
    return 1 << min(_WIDEST, max(0, size.bit_length() - 1))


def cut_off(vector: NDArray[np.float32]) -> float:
    """Squared length of what ``rotate`` cuts off."""
    return float(np.sum(np.square(np.maximum(np.abs(vector, dtype=np.float64) - LARGEST, 0))))


def _blocks(x: NDArray[np.float32], seed: int, rounds: int) -> list[tuple[NDArray[np.float32], NDArray[np.uint64]]]:
    """All blocks of all rounds, in order, as views; and the words with their sign flips."""
    at, block = starts(x.size) * rounds, block_size(x.size)
    per_block = max(1, block // _WORD)
    words = Stream.of("hadamard", seed).u64(len(at) * per_block).reshape(len(at), per_block)
    return [(x[start : start + block], flips) for start, flips in zip(at, words, strict=True)]


def _flip(block: NDArray[np.float32], flips: NDArray[np.uint64]) -> None:
    """Each number's sign, where its bit is set."""
    bits = np.unpackbits(flips.astype("<u8").view(np.uint8), bitorder="little", count=block.size)
    signs = block.view(np.uint32)
    signs ^= bits.astype(np.uint32) << np.uint32(31)


def _transform(block: NDArray[np.float32]) -> None:
    """In place, as a matrix: the far pairs row by row, then the near ones with rows and columns exchanged."""
    m = block.size.bit_length() - 1
    matrix = block.reshape(1 << (m + 1) // 2, -1)
    rows, columns = matrix.shape
    block *= np.float32(math.sqrt(2.0**-m))
    _butterflies(block, columns)
    turned = np.ascontiguousarray(matrix.T)
    _butterflies(turned.reshape(-1), rows)
    matrix[...] = turned.T


def _butterflies(x: NDArray[np.float32], nearest: int) -> None:
    distance = x.size // 2
    while distance >= nearest:
        pairs = x.reshape(-1, 2, distance)
        difference = pairs[:, 0] - pairs[:, 1]
        pairs[:, 0] += pairs[:, 1]
        pairs[:, 1] = difference
        distance //= 2
