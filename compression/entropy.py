"""The entropy stage: small signed integers, mostly zero, in as few bits as their statistics allow.

Used inside codecs that quantise; not a stage of its own.

    encode(levels, spec, limit, model, hint)    int16[n] with |level| <= limit, in the order of the flattened tensors
    decode(data, spec, limit, hint)             the same integers, or DecodeError

A level is coded as a few yes-or-no questions through a binary range coder (``kernels/range_coder.h``): is there
anything but zeros in this block of 16? is this level zero? its sign? is its magnitude more than 1, 2, ...? What differs
is how the probability of an answer is found:

    static      from two bytes in front: the density, and how many magnitudes exceed one. Nothing is learnt.
    adaptive    counted while coding, under one small context: the block above and the one before; the level above.
    context     counted under five contexts at once, whose opinions a small network mixes and learns from (Mahoney 2005,
                "Adaptive Weighing of Context Models for Lossless Data Compression"): neighbours in row and column, how
                lively row and column have been, the hint, the place in the block, the tensor. Takes 5 to 20 % fewer
                bits than static on what a run really sends, and 4 to 6 times as long.
    auto        context up to 2**20 levels, adaptive above.

``spec`` says which tensors the integers are of: rows and columns are contexts (axis 0 is the rows). ``hint()``:
int8[n], -3 to 3, what both ends hold that says where levels are likely, and of which sign, or None; asked for only
where it is of use.

Format: a byte that names the model (0 for levels packed as they are, so that it is never more than a byte longer), with
its highest bit set where the hint was used. Then the chunks, each behind its length as a base-128 varint. A chunk is
whole rows, at most 2**18 levels (of a longer row, a piece), and starts from nothing, so that chunks can be decoded in
any order. Models and coder are integers throughout: the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits, twin
from fedpress.compression.codec import Bytes
from fedpress.compression.native import kernels
from fedpress.compression.varint import read_varint, varint
from fedpress.errors import DecodeError
from fedpress.params import Spec

Model: TypeAlias = Literal["auto", "static", "adaptive", "context"]
Hint: TypeAlias = Callable[[], NDArray[np.int8] | None]
_MODELS: Final = {"static": twin.STATIC, "adaptive": twin.ADAPTIVE, "context": twin.CONTEXT}
_RAW: Final = 0
_HINTED: Final = 0x80
_CHUNK: Final = 1 << 18
_LARGE: Final = 1 << 20


def max_bytes(spec: Spec, limit: int) -> int:
    """Most bytes that ``encode`` gives for levels of ``spec`` up to ``limit``: packed as they are, and a byte."""
    return 1 + bits.packed_size(spec.size, _width(limit))


def encode(levels: NDArray[Any], spec: Spec, limit: int, model: Model = "auto", hint: Hint = lambda: None) -> bytes:
    """``levels`` (integers[n], magnitudes up to ``limit``, at most 32767) as bytes, never more than ``max_bytes``."""
    small = np.ascontiguousarray(levels, np.int16)
    room = max_bytes(spec, limit) - 1
    if model == "auto":
        model = "context" if spec.size <= _LARGE else "adaptive"
    out = np.empty(min(room, 3 * _CHUNK), np.uint8)
    told = hint() if model == "context" else None
    pieces = [bytes([1 + _MODELS[model] + (_HINTED if told is not None else 0)])]
    for parts, at, size in _chunks(spec):
        tips = None if told is None else told[at : at + size]
        used = kernels.levels_encode(small[at : at + size], tips, parts, _MODELS[model], out)
        pieces += [varint(used), out[:used].tobytes()]
        room -= used + len(pieces[-2])
        if room < 0 or used > out.size:
            return bytes([_RAW]) + bits.pack(levels.astype(np.int32) + limit, _width(limit))
    return b"".join(pieces)


def decode(data: Bytes, spec: Spec, limit: int, hint: Hint = lambda: None) -> NDArray[np.int16]:
    """int16[n]. Raises DecodeError for anything that ``encode`` would not give."""
    ways = (*range(len(_MODELS) + 1), 1 + _MODELS["context"] + _HINTED)
    if not len(data) or data[0] not in ways:
        raise DecodeError("Expected a known way of coding levels.")
    told = hint() if data[0] & _HINTED else None
    if data[0] & _HINTED and told is None:
        raise DecodeError("Expected levels coded without a hint: this end has none.")
    if data[0] == _RAW:
        packed = bits.unpack(data[1:], _width(limit), spec.size).astype(np.int32) - limit
        if packed.size and int(packed.max()) > limit:
            raise DecodeError(f"Expected levels up to {limit}, got {int(packed.max())}.")
        return packed.astype(np.int16)
    levels, place = np.empty(spec.size, np.int16), 1
    for parts, at, size in _chunks(spec):
        length, place = read_varint(data, place)
        piece = data[place : place + length]
        tips = None if told is None else told[at : at + size]
        model, found = (data[0] & ~_HINTED) - 1, levels[at : at + size]
        if len(piece) != length or not kernels.levels_decode(piece, tips, parts, model, limit, found):
            raise DecodeError("Expected the levels of a chunk, got bytes that no encoder makes.")
        place += length
    if place != len(data):
        raise DecodeError(f"Expected {place} bytes of levels, got {len(data)}.")
    return levels


def _width(limit: int) -> int:
    return (2 * limit).bit_length()


def _chunks(spec: Spec) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Chunks as (parts int64[p, 3], first level, number of levels); a part is (rows, columns, place of its tensor)."""
    parts: list[tuple[int, int, int]] = []
    start = size = 0
    for place, rows, columns in _matrices(spec):
        while rows:
            fit = (_CHUNK - size) // columns
            if not fit:
                yield np.array(parts, np.int64), start, size
                parts, start, size = [], start + size, 0
                continue
            taken = min(rows, fit)
            parts.append((taken, columns, place))
            size += taken * columns
            rows -= taken
    if size:
        yield np.array(parts, np.int64), start, size


def _matrices(spec: Spec) -> Iterator[tuple[int, int, int]]:
    """Every tensor as (its place, rows, columns); rows too long for a chunk in pieces that are not."""
    for place, t in enumerate(spec):
        rows = t.shape[0] if len(t.shape) > 1 else 1
        columns = t.size // rows if t.size else 0
        if columns > _CHUNK:
            pieces = [_CHUNK] * (columns // _CHUNK) + [columns % _CHUNK] * (columns % _CHUNK > 0)
            yield from ((place, 1, piece) for _ in range(rows) for piece in pieces)
        elif columns:
            yield place, rows, columns
