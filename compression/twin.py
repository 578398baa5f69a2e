"""The kernels once more in Python: the oracle of the tests, and what runs where no compiler was at hand.

Same bytes, hundreds of times slower where the range coder is concerned. Names and order follow the C files, whose
comments are not repeated here: ``kernels/levels.c``, ``kernels/range_coder.h`` and ``kernels/vectors.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STATIC, ADAPTIVE, CONTEXT = range(3)
_BLOCK, _ESCAPE, _INPUTS, _CONTEXTS, _SETS = 16, 14, 5, 256, 12
_LIMIT: Final = 32767
_LANES, _GATHER = 16, 1 << 16
_LOGISTIC: Final = (
    *(22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768),
    *(40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514),
)
_ROOT: Final = (
    *(65536, 62757, 60097, 57549, 55109, 52773, 50535, 48393),
    *(46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219),
)
_BELOW_32: Final = (1 << 32) - 1


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray()
        self.low, self.range, self.pending, self.cache, self.held = 0, _BELOW_32, 0, 0, False

    def shift(self) -> None:
        if self.low < 0xFF000000 or self.low >> 32:
            carry = self.low >> 32
            if self.held:
                self.out.append(self.cache + carry & 0xFF)
            self.out += bytes([0xFF + carry & 0xFF]) * self.pending
            self.pending, self.held, self.cache = 0, True, self.low >> 24 & 0xFF
        else:
            self.pending += 1
        self.low = self.low << 8 & _BELOW_32

    def code(self, bit: int, p: int) -> int:
        bound = (self.range >> 16) * p
        if bit:
            self.range = bound
        else:
            self.low += bound
            self.range -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            self.shift()
        return bit

    def end(self) -> bytes:
        high = self.low + self.range - 1
        for bits in (32, 24, 16, 8, 0):
            mask = (1 << bits) - 1
            value = (self.low + mask) & ~mask
            if value <= high:
                break
        self.low = value
        for _ in range(5):
            self.shift()
        return bytes(self.out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.range, self.bits = data, 0, _BELOW_32, 0
        for _ in range(4):
            self.bits = self.bits << 8 | self.take()

    def take(self) -> int:
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.at += 1
        return byte

    def code(self, bit: int, p: int) -> int:  # noqa: ARG002  # a reader is told nothing, and has the writer's signature
        bound = (self.range >> 16) * p
        found = self.bits < bound
        if found:
            self.range = bound
        else:
            self.bits -= bound
            self.range -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            self.bits = self.bits << 8 | self.take()
        return int(found)


def _squash(d: int) -> int:
    d = min(max(d, -2047), 2047) + 2048
    at, part = d >> 7, d & 127
    return (_LOGISTIC[at] * (128 - part) + _LOGISTIC[at + 1] * part + 64) >> 7


def _stretches() -> list[int]:
    table: list[int] = []
    for d in range(-2047, 2048):
        table += [d] * ((_squash(d) >> 4) + 1 - len(table))
    return table + [2047] * (4096 - len(table))


_STRETCH: Final = _stretches()
_GAIN: Final = [131072 // (2 * i + 3) for i in range(1024)]


def _activity_class(activity: int) -> int:
    return min(15, max(0, activity.bit_length() - 1))


def _density(byte: int) -> int:
    return min(65535, max(1, _ROOT[byte & 15] >> (byte >> 4)))


def _clamp(p: int) -> int:
    return min(65504, max(32, p))


def _follow(activity: int, on: int, shift: int) -> int:
    return activity + (((65535 if on else 0) - activity) >> shift)


def _sign(level: int) -> int:
    return (level > 0) - (level < 0)


class _Coder:
    """``code(bit, p)`` writes a bit, or finds one and does not look at its argument."""

    def __init__(self, code: Callable[[int, int], int], decoding: bool, model: int, head: bytes, limit: int) -> None:
        self.code, self.decoding, self.model, self.limit = code, decoding, model, limit
        p, none = _density(head[0]), [65536]
        for _ in range(_BLOCK):
            none.append(none[-1] * (65536 - p) >> 16)
        self.fixed_block, self.fixed_level, self.fixed_more = _clamp(65536 - none[-1]), _clamp(p), _clamp(head[1] << 8)
        self.fixed_first = [0, *(_clamp(p * 65536 // (65537 - n)) for n in none[1:])]
        self.weights = [[12000] * _INPUTS for _ in range(_SETS)]
        self.block = [[self.fixed_block << 16] * _CONTEXTS for _ in range(_INPUTS)]
        self.level = [[self.fixed_first[_BLOCK] << 16] * _CONTEXTS for _ in range(_INPUTS)]
        places = [self.fixed_first[_BLOCK - j] << 16 for j in range(_BLOCK)]
        for i in (3,) if model == CONTEXT else (0, 1, 2):
            self.level[i] = places + [self.fixed_level << 16] * (_CONTEXTS - _BLOCK)
        self.sign, self.more = [32768 << 16] * _CONTEXTS, [self.fixed_more << 16] * _CONTEXTS

    def learn(self, slots: list[int], at: int, bit: int, most: int) -> None:
        seen, p = slots[at] & 1023, slots[at] >> 10
        p += ((((1 << 22) - 1 if bit else 0) - p) * _GAIN[seen]) >> 16
        slots[at] = p << 10 | (seen + (seen < most))

    def adapt(self, bit: int, slots: list[int], at: int, most: int) -> int:
        bit = self.code(bit, _clamp(slots[at] >> 16))
        self.learn(slots, at, bit, most)
        return bit

    def mix(self, bit: int, tables: list[list[int]], at: Sequence[int], chosen: int) -> int:
        weight = self.weights[chosen]
        opinion = [_STRETCH[table[i] >> 20] for table, i in zip(tables, at, strict=True)]
        total = sum(o * w for o, w in zip(opinion, weight, strict=True)) >> 16
        p = _squash(total)
        bit = self.code(bit, p)
        miss = (65536 if bit else 0) - p
        for i, table in enumerate(tables):
            weight[i] += (opinion[i] * miss * 10 + (1 << 18)) >> 19
            self.learn(table, at[i], bit, 127)
        return bit

    def magnitude(self, size: int, context: int) -> int:
        for found in range(1, _ESCAPE + 1):
            more = int(size > found)
            if self.model == STATIC:
                more = self.code(more, self.fixed_more)
            else:
                more = self.adapt(more, self.more, 16 + context if found == 1 else found, 127)
            if not more:
                return found
        rest, wide = size - _ESCAPE, 0
        width = rest.bit_length() - 1
        while self.code(int(wide < width), 32768):
            wide += 1
            if wide > 15:
                return 0
        value = 1
        for i in range(wide - 1, -1, -1):
            value = value << 1 | self.code(rest >> i & 1 if not self.decoding else 0, 32768)
        value += _ESCAPE
        return 0 if value > self.limit else value

    def matrix(self, levels: list[int], start: int, hint: list[int] | None, rows: int, width: int, tensor: int) -> bool:
        """Code ``rows * width`` levels from ``start`` on, in place; False for a bad one."""
        blocks = -(-width // _BLOCK)
        above, above2, lively = [0] * blocks, [0] * blocks, self.fixed_block
        columns, actives = [self.fixed_first[_BLOCK]] * width, [self.fixed_block] * blocks
        context, adaptive = self.model == CONTEXT, self.model == ADAPTIVE
        for row in range(rows):
            here = start + row * width
            left = 0

            def level_at(column: int, back: int, here: int = here, row: int = row) -> int:
                inside = 0 <= column < width and row >= back
                return levels[here + column - back * width] if inside else 0

            def tip_at(column: int, here: int = here) -> int:
                return hint[here + column] if hint is not None and 0 <= column < width else 0

            for block in range(blocks):
                begin = block * _BLOCK
                length = min(_BLOCK, width - begin)
                any_ = int(not self.decoding and any(levels[here + begin : here + begin + length]))
                a, a2 = above[block], above2[block]
                if context:
                    tips = sum(tip_at(begin + j) != 0 for j in range(length))
                    over, last = min(a, 3) + (a > 4), min(left, 3)
                    at = (
                        (over * 2 + (a2 > 0)) * 4 + last,
                        _activity_class(actives[block]) * 4 + last,
                        _activity_class(lively) * 4 + (a > 0) + (a2 > 0),
                        (min(tips, 3) + (tips > 4) + (tips > 8)) * 3 + min(a, 2),
                        tensor * 16 + length - 1,
                    )
                    any_ = self.mix(any_, self.block, at, over)
                    actives[block] = _follow(actives[block], any_, 3)
                    lively = _follow(lively, any_, 4)
                elif adaptive:
                    any_ = self.adapt(any_, self.block[0], min(a, 3) * 4 + min(left, 3), 255)
                else:
                    any_ = self.code(any_, self.fixed_block)
                above2[block], above[block], left = a, 0, 0
                if not any_:
                    continue
                for j in range(length):
                    column = begin + j
                    level = levels[here + column]
                    on = int(level != 0)
                    up, before = level_at(column, 1), level_at(column - 1, 0)
                    over, last = (0, 0) if self.model == STATIC else (min(abs(up), 2), min(abs(before), 2))
                    nudge = abs(tip_at(column)) if context else 0
                    place = _BLOCK - length + j
                    if left == 0 and j == length - 1:
                        on = 1
                    elif context:
                        over2, before2 = level_at(column, 2) != 0, level_at(column - 2, 0) != 0
                        corners = (level_at(column - 1, 1) != 0) + (level_at(column + 1, 1) != 0)
                        beside = (tip_at(column - 1) != 0) + (tip_at(column + 1) != 0)
                        at = (
                            ((over * 2 + over2) * 3 + last) * 2 + before2 + (36 if left else 0),
                            _activity_class(columns[column]) * 3 + last,
                            (nudge * 3 + beside) * 3 + over,
                            _BLOCK + min(left, 7) if left else place,
                            tensor * 16 + min(corners + over + last, 3) * 4 + min(left, 3),
                        )
                        on = self.mix(on, self.level, at, 6 + min(left, 3))
                        columns[column] = _follow(columns[column], on, 4)
                    elif adaptive:
                        on = self.adapt(on, self.level[over], _BLOCK + min(left, 3) if left else place, 255)
                    else:
                        on = self.code(on, self.fixed_level if left else self.fixed_first[length - j])
                    if context and left == 0 and j == length - 1:
                        columns[column] = _follow(columns[column], on, 4)
                    if not on:
                        continue
                    left += 1
                    if context:
                        lean = _sign(tip_at(column)) * 9 + _sign(up) * 3 + _sign(before)
                        minus = self.adapt(int(level < 0), self.sign, 13 + lean, 255)
                    else:
                        minus = self.code(int(level < 0), 32768)
                    size = self.magnitude(abs(level), (over * 3 + last) * 4 + nudge)
                    if not size:
                        return False
                    levels[here + column] = -size if minus else size
                above[block] = left
        return True


def levels_encode(
    levels: NDArray[np.int16],
    hint: NDArray[np.int8] | None,
    parts: NDArray[np.int64],
    model: int,
    out: NDArray[np.uint8],
) -> int:
    """See ``kernels/levels.h``."""
    total, full, big = levels.size, int(np.count_nonzero(levels)), int(np.count_nonzero(np.abs(levels) > 1))
    density = 0
    while density < 255 and _density(density) * total > full << 16:
        density += 1
    head = bytes((density, min(255, big * 256 // full if full else 0)))
    writer = _Writer()
    _all_parts(_Coder(writer.code, False, model, head, _LIMIT), levels.tolist(), hint, parts)
    data = head + writer.end()
    if len(data) <= out.size:
        data = _stripped(data)
        out[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)


def levels_decode(
    data: Any,
    hint: NDArray[np.int8] | None,
    parts: NDArray[np.int64],
    model: int,
    limit: int,
    levels: NDArray[np.int16],
) -> bool:
    """See ``kernels/levels.h``."""
    data = bytes(data)
    if len(data) < 2:
        return False
    reader, found = _Reader(data[2:]), [0] * levels.size
    if reader.bits >= reader.range:
        return False
    if not _all_parts(_Coder(reader.code, True, model, data[:2], limit), found, hint, parts):
        return False
    levels[:] = found
    return len(reader.data) <= reader.at and (len(data) == 2 or data[-1] != 0)


def _stripped(data: bytes) -> bytes:
    return data[:2] + data[2:].rstrip(b"\0")


def _all_parts(coder: _Coder, levels: list[int], hint: NDArray[np.int8] | None, parts: NDArray[np.int64]) -> bool:
    at, tips = 0, None if hint is None else hint.tolist()
    for rows, columns, tensor in parts.tolist():
        if not coder.matrix(levels, at, tips, rows, columns, tensor & 15):
            return False
        at += rows * columns
    return True


def sum_squares(x: NDArray[np.float32]) -> float:
    """See ``kernels/vectors.h``."""
    lanes = np.zeros(_LANES)
    for at in range(0, x.size, _GATHER):
        part = x[at : at + _GATHER]
        block = np.zeros(-(-part.size // _LANES) * _LANES)
        block[: part.size] = part
        lanes += np.add.reduce(np.square(block).reshape(-1, _LANES), axis=0)
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])


def histogram(x: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
    """See ``kernels/vectors.h``."""
    bins = np.ascontiguousarray(x).view(np.uint32) >> np.uint32(19) & np.uint32(counts.size - 1)
    counts[:] = np.bincount(bins, minlength=counts.size)


def finite(x: NDArray[np.float32]) -> bool:
    """True if no number is NaN or infinite."""
    return bool(np.isfinite(x).all())


def quantise(x: NDArray[np.float32], inverse: float, levels: NDArray[np.int16]) -> tuple[int, int, int, int]:
    """See ``kernels/vectors.h``."""
    scaled = np.minimum(np.abs(x) * np.float32(inverse), np.float32(_LIMIT))
    size = (scaled + np.float32(1 / 3)).astype(np.int32)
    levels[:] = np.where(x < 0, -size, size)
    found: list[int] = []
    for which in (size == 1, size > 1):
        off = (scaled[which] - size[which].astype(np.float32)) * np.float32(65536)
        found += [int(np.count_nonzero(which)), int(off.astype(np.int64).sum())]
    return found[0], found[1], found[2], found[3]


def values(levels: NDArray[np.int16], step: float, one: float, more: float, x: NDArray[np.float32]) -> None:
    """See ``kernels/vectors.h``."""
    size = np.abs(levels.astype(np.float32))
    shift = np.where(size > 1, np.float32(more), np.where(size > 0, np.float32(one), np.float32(0)))
    value = (size + shift) * np.float32(step)
    x[:] = np.where(levels < 0, -value, value)


def lost(x: NDArray[np.float32], levels: NDArray[np.int16], step: float, one: float, more: float) -> float:
    """See ``kernels/vectors.h``."""
    off = np.empty(x.size, np.float32)
    values(levels, step, one, more, off)
    return sum_squares(np.subtract(x, off, out=off))


def plus(x: NDArray[np.float32], share: float, y: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """See ``kernels/vectors.h``."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.add(x, np.float32(share) * y, out=out)


def fold(total: NDArray[np.float64], x: NDArray[np.float32], weight: float) -> None:
    """See ``kernels/vectors.h``."""
    for at in range(0, x.size, _GATHER):
        total[at : at + _GATHER] += x[at : at + _GATHER].astype(np.float64) * weight


def numbers(key: int, at: int, out: NDArray[np.uint64]) -> None:
    """See ``kernels/vectors.h``."""
    index = np.arange(at + 1, at + out.size + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(key) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[:] = z ^ (z >> np.uint64(31))


def uniform(key: int, at: int, out: NDArray[np.float32]) -> None:
    """See ``kernels/vectors.h``."""
    found = np.empty(out.size, np.uint64)
    numbers(key, at, found)
    out[:] = (found >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def pack(values: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None:
    """See ``kernels/vectors.h``. Eight values fill ``width`` whole bytes."""
    groups = -(-values.size // 8)
    padded = np.zeros((groups, 8), np.uint8)
    padded.reshape(-1)[: values.size] = values
    words = np.zeros(groups, "<u8")
    for lane in range(8):
        words |= padded[:, lane].astype("<u8") << np.uint64(lane * width)
    out[:] = words.view(np.uint8).reshape(groups, 8)[:, :width].reshape(-1)[: out.size]


def unpack(data: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None:
    """See ``kernels/vectors.h``."""
    groups = -(-out.size // 8)
    padded = np.zeros(groups * width, np.uint8)
    padded[: data.size] = data
    words = np.zeros((groups, 8), np.uint8)
    words[:, :width] = padded.reshape(groups, width)
    lanes, mask = words.view("<u8").reshape(-1), np.uint64((1 << width) - 1)
    found = np.empty((groups, 8), np.uint8)
    for lane in range(8):
        found[:, lane] = (lanes >> np.uint64(lane * width)) & mask
    out[:] = found.reshape(-1)[: out.size]
