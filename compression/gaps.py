"""Strictly increasing indices as Golomb-Rice coded gaps (Golomb 1966; Rice 1979): about 8.1 bits each at a density of
1 %.

A gap (the zeros between two chosen positions) is split at bit ``r``: the low ``r`` bits are packed as they are, all
together; what is above follows in unary, as so many 0-bits and a 1-bit. Two runs instead of one interleaved stream:
the same bits, but both runs are read with whole-array operations. ``r`` follows from count and range alone (Kiely
2004, "Selecting the Golomb Parameter in Rice Coding", his optimal rule for geometric gaps, here in integers so that
no platform's logarithm matters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits
from fedpress.compression.codec import Bytes
from fedpress.errors import DecodeError


def rice_parameter(count: int, limit: int) -> int:
    """Largest r with ``2**r <= 0.9625 * (mean gap + 1/2)``, not below 0: optimal for a random subset of the range."""
    ratio = 77 * (2 * limit - count) // (160 * count) if count else 0
    return max(0, ratio.bit_length() - 1)


def max_bytes(count: int, limit: int) -> int:
    """Most bytes that ``count`` indices below ``limit`` can take."""
    r = rice_parameter(count, limit)
    return bits.packed_size(count, r) + (count + ((limit - count) >> r) + 7) // 8


def encode(indices: NDArray[np.int64], limit: int) -> bytes:
    """Strictly increasing ``indices``, all in [0, limit)."""
    count = indices.size
    if not count:
        return b""
    r = rice_parameter(count, limit)
    gaps = np.diff(indices, prepend=-1) - 1
    ends = np.cumsum((gaps >> r) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 1
    return bits.pack(gaps & ((1 << r) - 1), r) + np.packbits(unary, bitorder="little").tobytes()


def decode(data: Bytes, count: int, limit: int) -> NDArray[np.int64]:
    """The ``count`` indices below ``limit`` that ``data`` holds, and nothing else. Raises DecodeError."""
    if len(data) > max_bytes(count, limit):
        raise DecodeError(f"Expected at most {max_bytes(count, limit)} bytes of indices, got {len(data)}.")
    if not count:
        return np.zeros(0, np.int64)
    r = rice_parameter(count, limit)
    split = bits.packed_size(count, r)
    low = bits.unpack(data[:split], r, count).astype(np.int64)
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(data[split:], np.uint8), bitorder="little"))
    if ends.size != count or ends[-1] // 8 != len(data) - split - 1:
        raise DecodeError(f"Expected {count} indices that end in the last byte, got {ends.size}.")
    gaps = ((np.diff(ends, prepend=-1) - 1) << r) | low
    indices = np.cumsum(gaps + 1) - 1
    if indices[-1] >= limit:
        raise DecodeError(f"Expected indices below {limit}, got {indices[-1]}.")
    return indices
