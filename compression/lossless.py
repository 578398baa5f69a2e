"""Lossless: the floor. Every float32 comes back to the bit, negative zeros included.

Sign, exponent and mantissa are coded apart (Lindstrom and Isenburg 2006, "Fast and Efficient Compression of
Floating-Point Data"; Hershcovitch et al. 2024, "ZipNN: Lossless Compression for AI Models"): exponents are few and go
through the entropy stage, mantissas are noise and travel as they are. But for their ends: a difference of two float32
models is a multiple of the larger number's last bit, so that small differences end in zeros. Where a number ends, its
lowest bit set, goes through the entropy stage too, as the count of zeros or as the bit's place value, whichever takes
less; the bits in between are what is left.

Deviation: no general compressor of bytes (ZipNN takes Huffman codes of zstd), whose bytes differ between versions and
builds.

Payload: a zero byte and raw float32; or a byte of flags, three numbers that the integers are relative to, exponents and
ends each behind its length, then signs and bits, from the highest bit of all numbers to the lowest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy
from fedpress.compression.codec import Bytes, Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.compression.varint import read_varint, varint
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

_RAW, _CODED, _PLACES, _SIGNED_ZEROS = 0, 1, 2, 4
_HEAD: Final = struct.Struct("<BBBH")
_MANTISSA: Final = 23
_LARGEST_EXPONENT: Final = 254
#: No exponent or end is farther from another.
_LIMIT: Final = _LARGEST_EXPONENT + _MANTISSA


@dataclass(frozen=True)
class Lossless(Stage):
    """Exact to the bit: exponents entropy coded, mantissas without the zeros they end in."""

    id: ClassVar[str] = "lossless"
    unbiased: ClassVar[bool] = True  #: exact
    keeps: ClassVar[float] = 1.0  #: nothing is lost

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Coded, or raw where that is no longer."""
        x, spec = flatten(tensors), Spec.of(tensors)
        raw = bytes([_RAW]) + x.astype("<f4", copy=False).tobytes()
        coded = _coded(x.view(np.uint32), spec) if x.size else raw
        return Wire(min(coded, raw, key=len), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Raises DecodeError."""
        if not len(wire.side) or wire.side[0] > _CODED + _PLACES + _SIGNED_ZEROS:
            raise DecodeError("Expected flags of 'lossless'.")
        if wire.side[0] & _CODED:
            return unflatten(_decoded(wire.side, spec).view(np.float32), spec), state
        if wire.side[0] != _RAW or len(wire.side) != self.max_bytes(spec):
            raise DecodeError(f"Expected {spec.nbytes} bytes of float32, got {len(wire.side) - 1}.")
        return unflatten(np.frombuffer(wire.side[1:], "<f4").astype(np.float32), spec), state

    def error_bound(self, tensors: Tensors) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def max_bytes(self, spec: Spec) -> int:
        """4 bytes per parameter, and one."""
        return 1 + spec.nbytes


def _coded(pattern: NDArray[np.uint32], spec: Spec) -> bytes:
    exponent = (pattern >> np.uint32(_MANTISSA) & np.uint32(0xFF)).astype(np.int16)
    ended = pattern | np.uint32(1 << _MANTISSA)  # so that a mantissa of zero ends there
    ends = np.bitwise_count((ended & -ended) - np.uint32(1)).astype(np.int16)
    some = exponent > 0
    lowest = int(exponent[some].min(initial=_LARGEST_EXPONENT))
    rank = np.where(some, exponent - lowest + 1, 0)
    usual = _most_frequent(rank)
    signs = bool(np.any(pattern == np.uint32(1 << 31)))
    tries = []
    for places in (False, True):
        value = ends + exponent if places else ends
        common = _most_frequent(value[some])
        about = np.where(some, value - common, _MANTISSA - ends)
        tries.append((entropy.encode(about, spec, _LIMIT), common, places))
    found, common, places = min(tries, key=lambda one: len(one[0]))
    flags = _CODED + _PLACES * places + _SIGNED_ZEROS * signs
    ranks = entropy.encode(rank - usual, spec, _LIMIT)
    pieces = [_HEAD.pack(flags, lowest, usual, common), varint(len(ranks)), ranks, varint(len(found)), found]
    waiting = np.zeros(0, np.uint8)
    for bit, which in chain(((31, _signed(pattern, signs)),), _between(ends)):
        waiting = np.append(waiting, (pattern[which] >> np.uint32(bit) & np.uint32(1)).astype(np.uint8))
        whole = waiting.size // 8 * 8
        pieces.append(np.packbits(waiting[:whole], bitorder="little").tobytes())
        waiting = waiting[whole:]
    return b"".join([*pieces, np.packbits(waiting, bitorder="little").tobytes()])


def _decoded(data: Bytes, spec: Spec) -> NDArray[np.uint32]:
    if len(data) < _HEAD.size or not spec.size:
        raise DecodeError("Expected a head of 'lossless' and some parameters.")
    flags, lowest, usual, common = _HEAD.unpack(data[: _HEAD.size])
    size, at = read_varint(data, _HEAD.size)
    exponent = entropy.decode(data[at : at + size], spec, _LIMIT) + np.int16(usual)
    exponent += np.where(exponent > 0, np.int16(lowest - 1), np.int16(0))
    size, at = read_varint(data, at + size)
    ends = entropy.decode(data[at : at + size], spec, _LIMIT)
    shift = exponent if flags & _PLACES else np.int16(0)
    common = min(common, _LIMIT)
    np.copyto(ends, np.where(exponent > 0, ends + np.int16(common) - shift, np.int16(_MANTISSA) - ends))
    if exponent.min() < 0 or exponent.max() > _LARGEST_EXPONENT or ends.min() < 0 or ends.max() > _MANTISSA:
        raise DecodeError("Expected exponents and mantissas of finite numbers.")
    pattern = exponent.astype(np.uint32) << np.uint32(_MANTISSA)
    pattern |= (np.uint32(1) << ends.astype(np.uint32)) & np.uint32((1 << _MANTISSA) - 1)
    signed = _signed(pattern, bool(flags & _SIGNED_ZEROS))
    count = int(np.count_nonzero(signed)) + int(np.maximum(_MANTISSA - 1 - ends, 0).sum(dtype=np.int64))
    data, spare = data[at + size :], -count % 8
    if len(data) != (count + 7) // 8 or (spare and data[-1] >> (8 - spare)):
        raise DecodeError(f"Expected {count} bits of signs and mantissas, got {len(data)} bytes.")
    start = 0
    for bit, which in chain(((31, signed),), _between(ends)):
        end = start + int(np.count_nonzero(which))
        pattern[which] |= _bits(data, start, end) << np.uint32(bit)
        start = end
    return pattern


def _between(ends: NDArray[np.int16]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Every bit of a mantissa above its lowest set bit: which numbers have it. (The lowest bit of all is never one.)"""
    for bit in range(_MANTISSA - 1, 0, -1):
        yield bit, ends < bit


def _signed(pattern: NDArray[np.uint32], zeros: bool) -> NDArray[np.bool_]:
    """Which numbers have their sign told: of zeros only if one of them is negative."""
    return np.ones(pattern.size, np.bool_) if zeros else (pattern << np.uint32(1)) != 0


def _bits(data: Bytes, start: int, end: int) -> NDArray[np.uint32]:
    """Bits from ``start`` to ``end`` of packed ones, uint32 of 0 or 1."""
    part = np.frombuffer(data[start // 8 : (end + 7) // 8], np.uint8)
    return np.unpackbits(part, bitorder="little")[start % 8 :][: end - start].astype(np.uint32)


def _most_frequent(values: NDArray[Any]) -> int:
    return int(np.bincount(values).argmax()) if values.size else 0
