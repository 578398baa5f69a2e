"""Lengths as base-128 varints: low seven bits first, the high bit set on all bytes but the last (Protocol Buffers)."""

from __future__ import annotations

from typing import Final

from fedpress.compression.codec import Bytes
from fedpress.errors import DecodeError

_LONGEST: Final = 5


def varint(number: int) -> bytes:
    """``number`` (0 to 2**35 - 1) in as few bytes as possible."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: Bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends. Raises DecodeError for one cut off, too long, or not the shortest."""
    number = shift = 0
    while True:
        if at >= len(data) or shift >= 7 * _LONGEST:
            raise DecodeError("Expected a length, got the payload's end or a number too long.")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if byte == 0 and shift > 7:
        raise DecodeError("Expected a length in as few bytes as possible.")
    return number, at
