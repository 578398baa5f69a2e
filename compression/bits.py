"""Unsigned integers of b bits each, packed without gaps: the little-endian bit stream that a C or Kotlin loop would
write.

Value ``i`` occupies bits ``i*b`` to ``i*b + b - 1``, counted from the least significant bit of the first byte. Unused
bits of the last byte are zero, and a reader insists on it, so that there is one encoding only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Bytes
from fedpress.compression.native import kernels
from fedpress.errors import DecodeError

#: Widths up to this are packed by the kernels; wider ones, which are rare and few, through single bits.
_LANE: Final = 8


def packed_size(count: int, width: int) -> int:
    """Bytes that ``count`` values of ``width`` bits take."""
    return (count * width + 7) // 8


def pack(values: NDArray[Any], width: int) -> bytes:
    """Values (unsigned integers below ``2**width``, width 0 to 32) as ``packed_size`` bytes."""
    if width == _LANE:
        return values.astype(np.uint8, copy=False).tobytes()
    if width > _LANE:
        bits = np.unpackbits(values.astype("<u4").view(np.uint8), bitorder="little").reshape(-1, 32)
        return np.packbits(bits[:, :width], bitorder="little").tobytes()
    out = np.zeros(packed_size(values.size, width), np.uint8)
    if width:
        kernels.pack(values.astype(np.uint8, copy=False), width, out)
    return out.tobytes()


def unpack(data: Bytes, width: int, count: int) -> NDArray[Any]:
    """Inverse of ``pack``: uint8[count] up to 8 bits, else uint32[count]. Raises DecodeError."""
    size = packed_size(count, width)
    if len(data) != size:
        raise DecodeError(f"Expected {size} bytes for {count} values of {width} bits, got {len(data)}.")
    spare = 8 * size - count * width
    if spare and data[-1] >> (8 - spare):
        raise DecodeError(f"Expected zeros in the last {spare} bits of packed values.")
    packed = np.frombuffer(data, np.uint8)
    if width == _LANE:
        return packed
    if width > _LANE:
        bits = np.zeros((count, 32), np.uint8)
        bits[:, :width] = np.unpackbits(packed, bitorder="little", count=count * width).reshape(count, width)
        return np.packbits(bits, bitorder="little").view("<u4")
    out = np.zeros(count, np.uint8)
    if width:
        kernels.unpack(packed, width, out)
    return out
