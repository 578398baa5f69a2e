"""Unsigned integers of b bits each, packed without gaps: the little-endian bit stream that a C or Kotlin loop would
write.

Value ``i`` occupies bits ``i*b`` to ``i*b + b - 1``, counted from the least significant bit of the first byte. Unused
bits of the last byte are zero, and a reader insists on it, so that there is one encoding only. Eight values fill
``b`` whole bytes, which is what makes the loops below short. C kernels with the same bytes will stand beside these
functions.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Bytes
from fedpress.errors import DecodeError

#: Widths up to this are packed in 64-bit lanes; wider ones, which are rare and few, through single bits.
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
    groups = -(-values.size // 8)
    padded = np.zeros((groups, 8), np.uint8)
    padded.reshape(-1)[: values.size] = values
    words = np.zeros(groups, "<u8")
    for lane in range(8):
        words |= padded[:, lane].astype("<u8") << np.uint64(lane * width)
    return words.view(np.uint8).reshape(groups, 8)[:, :width].tobytes()[: packed_size(values.size, width)]


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
    groups = -(-count // 8)
    padded = np.zeros(groups * width, np.uint8)
    padded[:size] = packed
    words = np.zeros((groups, 8), np.uint8)
    words[:, :width] = padded.reshape(groups, width)
    lanes = words.view("<u8").reshape(-1)
    out = np.empty((groups, 8), np.uint8)
    mask = np.uint64((1 << width) - 1)
    for lane in range(8):
        out[:, lane] = (lanes >> np.uint64(lane * width)) & mask
    return out.reshape(-1)[:count]
