"""What the formats of ``docs/codecs.md`` share, above all the entropy stage (section 5), ``ecsq`` and ``nmse``, read by
somebody who has only that page: plain Python, without fedpress and NumPy, its tables taken from the page."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "codecs.md").read_text(encoding="utf-8")
Shapes = list[tuple[int, ...]]
Part = tuple[int, int, int]  # rows, columns, place


def table(name: str) -> list[float]:
    found = re.search(rf"^    {name} = ((?:[-0-9.]+\s+)+)", PAGE, re.MULTILINE)
    assert found is not None
    return [float(word) for word in found[1].split()]


ROOT, LOGISTIC = [int(x) for x in table("ROOT")], [int(x) for x in table("LOGISTIC")]


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def bf16(data: bytes) -> float:
    return float(struct.unpack("<f", b"\0\0" + data)[0])


def varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


def unpacked(data: bytes, width: int, count: int) -> list[int]:
    bits = int.from_bytes(data, "little")
    return [bits >> i * width & ((1 << width) - 1) for i in range(count)]


def u(*labels: object) -> Iterator[int]:
    z = int.from_bytes(hashlib.sha256("\x1f".join(map(str, labels)).encode()).digest()[:8], "little")
    while True:
        z = (z + 0x9E3779B97F4A7C15) % 2**64
        y = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        y = (y ^ y >> 27) * 0x94D049BB133111EB % 2**64
        yield y ^ y >> 31


def rms(x: list[float]) -> float:
    sums = [0.0] * 16
    for start in range(0, len(x), 65536):
        own = [0.0] * 16
        for i, number in enumerate(x[start : start + 65536]):
            own[i % 16] += number * number
        sums = [a + b for a, b in zip(sums, own, strict=True)]
    for w in (8, 4, 2, 1):
        sums = [sums[j] + sums[j + w] for j in range(w)]
    return math.sqrt(sums[0] / len(x))


def hint_of(x: list[float], thresholds: list[float]) -> list[int]:
    return [sum(v > t for t in thresholds) - sum(v < -t for t in thresholds) for v in x]


def squash(d: int) -> int:
    e = min(2047, max(-2047, d)) + 2048
    a, f = e >> 7, e % 128
    return (LOGISTIC[a] * (128 - f) + LOGISTIC[a + 1] * f + 64) >> 7


STRETCH = [min(2047, bisect_left(range(-2047, 2048), j, key=lambda d: squash(d) >> 4) - 2047) for j in range(4096)]


def clamp(p: int) -> int:
    return min(65504, max(32, p))


def sign(x: int) -> int:
    return (x > 0) - (x < 0)


def class_of(activity: int) -> int:
    return min(15, max(1, activity).bit_length() - 1)


def followed(activity: int, event: int, by: int) -> int:
    return activity + (((65535 if event else 0) - activity) >> by)


class Chunk:
    """Reads the levels of one chunk; ``asked`` keeps every bit that was read and its probability."""

    def __init__(self, data: bytes, model: str, limit: int) -> None:
        self.data, self.model, self.limit, self.at = data, model, limit, 6
        self.range, self.code = 2**32 - 1, int.from_bytes(data[2:6].ljust(4, b"\0"), "big")
        self.asked: list[tuple[int, int]] = []
        p = min(65535, max(1, ROOT[data[0] % 16] >> (data[0] >> 4)))
        none = [65536]
        for _ in range(16):
            none.append(none[-1] * (65536 - p) >> 16)
        self.block, self.level, self.more = clamp(65536 - none[16]), clamp(p), clamp(256 * data[1])
        self.first = [0] + [clamp(65536 * p // (65537 - none[i])) for i in range(1, 17)]
        placed = [self.first[16 - i] for i in range(16)] + [self.level] * 240
        by_place = {"static": (), "adaptive": (0, 1, 2), "context": (3,)}[model]
        starts = {("B", i): [self.block] * 256 for i in range(5)} | {
            ("G", 0): [32768] * 27,
            ("H", 0): [self.more] * 52,
        }
        starts |= {("L", i): placed if i in by_place else [self.first[16]] * 256 for i in range(5)}
        self.counters = {key: [(64 * p, 0) for p in values] for key, values in starts.items()}
        self.weights = [[12000] * 5 for _ in range(10)]

    def bit(self, p: int) -> int:
        bound = (self.range >> 16) * p
        found = int(self.code < bound)
        if found:
            self.range = bound
        else:
            self.code, self.range = self.code - bound, self.range - bound
        while self.range < 2**24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.range, self.code, self.at = self.range << 8, self.code << 8 | byte, self.at + 1
        self.asked.append((p, found))
        return found

    def learn(self, name: str, i: int, index: int, bit: int, most: int) -> None:
        q, c = self.counters[name, i][index]
        q += ((2**22 - 1 if bit else 0) - q) * (131072 // (2 * c + 3)) >> 16
        self.counters[name, i][index] = q, min(most, c + 1)

    def adapt(self, name: str, i: int, index: int, most: int) -> int:
        bit = self.bit(clamp(self.counters[name, i][index][0] >> 6))
        self.learn(name, i, index, bit, most)
        return bit

    def mix(self, name: str, indices: list[int], chosen: int) -> int:
        weight = self.weights[chosen]
        o = [STRETCH[self.counters[name, i][index][0] >> 10] for i, index in enumerate(indices)]
        p = squash(sum(a * w for a, w in zip(o, weight, strict=True)) >> 16)
        bit = self.bit(p)
        for i, index in enumerate(indices):
            weight[i] += (o[i] * ((65536 if bit else 0) - p) * 10 + 2**18) >> 19
            self.learn(name, i, index, bit, 127)
        return bit

    def magnitude(self, context: int) -> int:
        for i in range(1, 15):
            if not (
                self.bit(self.more) if self.model == "static" else self.adapt("H", 0, i if i > 1 else context, 127)
            ):
                return i
        ones = 0
        while self.bit(32768):
            ones += 1
            assert ones <= 15
        rest = 1
        for _ in range(ones):
            rest = 2 * rest + self.bit(32768)
        assert rest + 14 <= self.limit
        return rest + 14

    def part(self, rows: int, columns: int, place: int, hint: list[int]) -> list[int]:
        context, adaptive, blocks = self.model == "context", self.model == "adaptive", -(-columns // 16)
        above, above2, busy = [0] * blocks, [0] * blocks, [self.block] * blocks
        lively, column, levels = self.block, [self.first[16]] * columns, [[0] * columns for _ in range(rows)]
        for r in range(rows):

            def v(dr: int, c: int, r: int = r) -> int:
                return levels[r - dr][c] if r >= dr and 0 <= c < columns else 0

            def h(c: int, r: int = r) -> int:
                return hint[r * columns + c] if 0 <= c < columns else 0

            left = 0
            for b in range(blocks):
                length = min(16, columns - 16 * b)
                a, a2, before = above[b], above2[b], min(left, 3)
                if context:
                    t, chosen = sum(h(16 * b + j) != 0 for j in range(length)), min(a, 3) + (a > 4)
                    indices = [(2 * chosen + (a2 > 0)) * 4 + before, 4 * class_of(busy[b]) + before]
                    indices += [4 * class_of(lively) + (a > 0) + (a2 > 0)]
                    indices += [3 * (min(t, 3) + (t > 4) + (t > 8)) + min(a, 2), 16 * (place % 16) + length - 1]
                    any_ = self.mix("B", indices, chosen)
                    busy[b], lively = followed(busy[b], any_, 3), followed(lively, any_, 4)
                else:
                    any_ = self.adapt("B", 0, 4 * min(a, 3) + before, 255) if adaptive else self.bit(self.block)
                above2[b], above[b], left = a, 0, 0
                for j in range(length if any_ else 0):
                    c = 16 * b + j
                    up, up2, back, back2 = v(1, c), v(2, c), v(0, c - 1), v(0, c - 2)
                    over, last, tip = min(abs(up), 2), min(abs(back), 2), abs(h(c)) if context else 0
                    if left == 0 and j == length - 1:
                        on = 1
                    elif context:
                        corners, beside = (v(1, c - 1) != 0) + (v(1, c + 1) != 0), (h(c - 1) != 0) + (h(c + 1) != 0)
                        indices = [((2 * over + (up2 != 0)) * 3 + last) * 2 + (back2 != 0) + (36 if left else 0)]
                        indices += [3 * class_of(column[c]) + last, (3 * tip + beside) * 3 + over]
                        indices += [16 + min(left, 7) if left else 16 - length + j]
                        indices += [16 * (place % 16) + 4 * min(corners + over + last, 3) + min(left, 3)]
                        on = self.mix("L", indices, 6 + min(left, 3))
                    elif adaptive:
                        on = self.adapt("L", over, 16 + min(left, 3) if left else 16 - length + j, 255)
                    else:
                        on = self.bit(self.level if left else self.first[length - j])
                    column[c] = followed(column[c], on, 4)
                    if on:
                        left += 1
                        lean = 13 + 9 * sign(h(c)) + 3 * sign(up) + sign(back)
                        minus = self.adapt("G", 0, lean, 255) if context else self.bit(32768)
                        size = self.magnitude(16 + 4 * (3 * over + last) + tip)
                        levels[r][c] = -size if minus else size
                above[b] = left
        return [level for row in levels for level in row]


def chunks(shapes: Shapes) -> list[list[Part]]:
    matrices: list[Part] = []
    for place, shape in enumerate(shapes):
        rows = shape[0] if len(shape) > 1 else 1
        columns = math.prod(shape) // rows if rows else 0
        if columns > 2**18:
            pieces = [min(2**18, columns - at) for at in range(0, columns, 2**18)]
            matrices += [(1, piece, place) for _ in range(rows) for piece in pieces]
        elif columns:
            matrices.append((rows, columns, place))
    found: list[list[Part]] = [[]]
    for rows, columns, place in matrices:
        while rows:
            taken = min(rows, (2**18 - sum(r * c for r, c, _ in found[-1])) // columns)
            if taken:
                found[-1].append((taken, columns, place))
            else:
                found.append([])
            rows -= taken
    return found if found[0] else []


def levels_of(data: bytes, shapes: Shapes, limit: int, hint: list[int] | None = None) -> list[int]:
    n, at, found = sum(map(math.prod, shapes)), 1, list[int]()
    if data[0] == 0:
        width = (2 * limit).bit_length()
        assert len(data) == 1 + -(-n * width // 8)
        return [code - limit for code in unpacked(data[1:], width, n)]
    assert hint is not None or data[0] < 128
    hint = hint if hint is not None and data[0] >= 128 else [0] * n
    for parts in chunks(shapes):
        size, at = varint(data, at)
        chunk = Chunk(data[at : at + size], ("", "static", "adaptive", "context")[data[0] % 128], limit)
        for rows, columns, place in parts:
            found += chunk.part(rows, columns, place, hint[len(found) : len(found) + rows * columns])
        assert chunk.at >= size
        assert size == 2 or data[at + size - 1]
        at += size
    assert at == len(data)
    return found


def halvings_of(data: bytes, count: int, step: float) -> tuple[list[int], int]:
    """Those of ``count`` tensors, and how many bytes they take."""
    w = data[0]
    size = 1 + -(-count * w // 8)
    halved = unpacked(data[1:size], w, count)
    assert 1 <= w <= 5
    assert w == max(1, max(halved).bit_length())
    assert step / 2 ** max(halved) >= 2.0**-101
    assert int.from_bytes(data[1:size], "little") >> count * w == 0
    return halved, size


def deadzone(data: bytes, shapes: Shapes, ladder: bool = False, s: list[float] | None = None) -> list[float]:
    """``ecsq`` and ``nmse``; ``s``: the step of the newest version, where it is known."""
    if data == b"\0\0":
        return [0.0] * sum(map(math.prod, shapes))
    word, c1, c2 = int.from_bytes(data[:2], "little"), *((128, 128) if ladder else data[2:4])
    step, at = bf16((word % 2**15).to_bytes(2, "little")), 2 if ladder else 4
    assert 2.0**-101 <= step <= 2.0**112
    sizes = [size for size in map(math.prod, shapes) if size]
    halved = [0] * len(sizes)
    if word >> 15:
        halved, taken = halvings_of(data[at:], len(sizes), step)
        at += taken
    steps = [step / 2**times for times, size in zip(halved, sizes, strict=True) for _ in range(size)]
    hint = None if s is None else hint_of(s, [f32(share * rms(s)) for share in (0.5, 2, 5)])
    out = []
    for level, own in zip(levels_of(data[at:], shapes, 32767, hint), steps, strict=True):
        shift = (c1 if abs(level) == 1 else c2) / 256 - 0.5 if level else 0.0
        out.append(math.copysign(f32(f32(abs(level) + shift) * own), level) if level else 0.0)
    return out


def guarded(data: bytes, read: Callable[[bytes], list[float]], shapes: Shapes, s: list[float] | None) -> list[float]:
    """Around a chain that ``read`` reads, and that promises no progress."""
    assert data[0] in (0xA0, 0xAF)
    return read(data[1:]) if data[0] == 0xA0 else deadzone(data[1:], shapes, False, s)
