"""The formats of ``docs/codecs.md`` that do without the entropy stage, its wrappers and its version 0, read by somebody
who has only that page: decoders in plain Python, without fedpress and NumPy, that meet fedpress to the bit."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.compression.codec import Context
from fedpress.compression.download import origin
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import describe, parse
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import Wrapper
from fedpress.params import Kind, Spec, Tensors, flatten, unflatten

_FOUND: Any = importlib.util.spec_from_file_location("stranger", Path(__file__).with_name("stranger.py"))
S: Any = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(S)
Shapes = list[tuple[int, ...]]
SHAPES: Shapes = [(8, 25), (9,), (), (0, 4), (3, 5, 7)]
SIZE = 315
SEED = 11

# -- a stranger's decoders --------------------------------------------------------------------------------------------


def floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def bf16(data: bytes) -> list[float]:
    return floats(b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2)))


def unpacked(data: bytes, width: int, count: int) -> list[int]:
    assert len(data) == -(-count * width // 8)
    found: list[int] = S.unpacked(data, width, count)
    return found


def draw(k: int, m: int) -> list[int]:
    if 2 * k > m:
        return sorted(set(range(m)) - set(draw(m - k, m)))
    found: dict[int, None] = {}
    for number in S.u("randomk", SEED):
        if len(found) == k:
            break
        found[number % m] = None
    return sorted(found)


def largest(x: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(x)), key=lambda i: (-abs(x[i]), i))[:k])


def spread(values: list[float], indices: list[int], n: int) -> list[float]:
    found = dict(zip(indices, values, strict=True))
    return [found.get(i, 0.0) for i in range(n)]


def starts(n: int) -> tuple[int, list[int]]:
    """B, and where the blocks of one round start."""
    size = 1 << min(16, n.bit_length() - 1)
    return size, [*range(0, n - size + 1, size), *([n - size] if n % size else [])]


def rotated_back(x: list[float], rounds: int) -> list[float]:
    x, (size, at) = list(x), starts(len(x))
    per_block = max(1, size // 64)
    words = list(islice(S.u("hadamard", SEED), per_block * len(at) * rounds))
    for i, start in reversed(list(enumerate(at * rounds))):
        block = [S.f32(number * S.f32(math.sqrt(1 / size))) for number in x[start : start + size]]
        d = size // 2
        while d:
            for j in range(size):
                if not j & d:
                    block[j], block[j + d] = S.f32(block[j] + block[j + d]), S.f32(block[j] - block[j + d])
            d //= 2
        flips = words[i * per_block : (i + 1) * per_block]
        x[start : start + size] = [-b if flips[j // 64] >> j % 64 & 1 else b for j, b in enumerate(block)]
    return x


def uniform(data: bytes, bits: int, per: str) -> list[float]:
    groups = []
    for shape in SHAPES:
        rows = shape[0] if per == "channel" and len(shape) > 1 else 1
        groups += [math.prod(shape) // rows] * rows if rows else []
    scales = floats(data[: 4 * len(groups)])
    each = [scale for scale, size in zip(scales, groups, strict=True) for _ in range(size)]
    times, low = (1, 2 ** (bits - 1) - 1) if bits > 1 else (2, 1)
    return [
        S.f32((times * q - low) * s) for q, s in zip(unpacked(data[4 * len(groups) :], bits, SIZE), each, strict=True)
    ]


def blocks(data: bytes, block: int, bits: int, values: list[float]) -> list[float]:
    """``fp8`` and ``nf4``."""
    sizes = [min(block, size - at) for size in map(math.prod, SHAPES) for at in range(0, size, block)]
    each = [s for s, size in zip(bf16(data[: 2 * len(sizes)]), sizes, strict=True) for _ in range(size)]
    return [S.f32(values[q] * s) for q, s in zip(unpacked(data[2 * len(sizes) :], bits, SIZE), each, strict=True)]


def e4m3() -> list[float]:
    positive = [(8 + q % 8) * 2.0 ** ((q >> 3) - 10) if q >> 3 else q * 2.0**-9 for q in range(128)]
    return positive + [-value for value in positive]


def randomk(data: bytes, density: float, block: int) -> list[float]:
    w = max(1, min(block, SIZE))
    m = -(-SIZE // w)
    runs = draw(min(m, max(1, math.ceil(density * m))), m)
    return spread(floats(data), [run * w + i for run in runs for i in range(w)], m * w)[:SIZE]


def sketch(data: bytes, density: float, columns: float, rows: int) -> list[float]:
    w, cells = min(SIZE, max(1, math.ceil(columns * SIZE))), floats(data)
    hashes = [list(islice(S.u("sketch", SEED, row), SIZE)) for row in range(rows)]
    votes = [[cells[row * w + (g >> 1) % w] * (-1 if g & 1 else 1) for g in of] for row, of in enumerate(hashes)]
    medians = [sorted(cell)[rows // 2] for cell in zip(*votes, strict=True)]
    indices = largest(medians, max(1, math.ceil(density * SIZE)))
    return spread([medians[i] for i in indices], indices, SIZE)


def rotation(data: bytes, bits: int, rounds: int) -> list[float]:
    n = max(SIZE, 64)
    _, at = starts(n)
    positive = [S.f32(c) for c in S.table(f"POSITIVE {bits}")]
    centroids = [-c for c in reversed(positive)] + positive
    lengths = [end - start for start, end in zip(at, [*at[1:], n], strict=True)]
    each = [s for s, size in zip(floats(data[: 4 * len(at)]), lengths, strict=True) for _ in range(size)]
    codes = unpacked(data[4 * len(at) :], bits, n)
    return rotated_back([S.f32(centroids[q] * s) for q, s in zip(codes, each, strict=True)], rounds)[:SIZE]


def modular(data: bytes, density: float, bits: int, clip: float, clients: int) -> list[float]:
    k = min(SIZE, max(1, math.ceil(density * SIZE)))
    split = -(-k * min(bits, 8) // 8)
    low, high = unpacked(data[:split], min(bits, 8), k), unpacked(data[split:], max(0, bits - 8), k)
    numbers = [a | b << 8 for a, b in zip(low, high, strict=True)]
    step = 5 * clip / math.sqrt(starts(SIZE)[0]) / ((2 ** (bits - 1) - 1) // clients)
    values = [S.f32((v - 2**bits if v >= 2 ** (bits - 1) else v) * S.f32(step * SIZE / k)) for v in numbers]
    return rotated_back(spread(values, draw(k, SIZE), SIZE), 1)


def powersgd(data: bytes, rank: int) -> list[float]:
    numbers, out = iter(bf16(data)), list[float]()
    for shape in SHAPES:
        size, r = math.prod(shape), shape[0] if len(shape) > 1 else 0
        c = size // r if r else 0
        if not c or rank * (r + c) >= size:
            out += islice(numbers, size)
            continue
        p, q = list(islice(numbers, r * rank)), list(islice(numbers, c * rank))
        for i in range(r):
            for j in range(c):
                value = 0.0
                for s in range(rank):
                    value = S.f32(value + S.f32(p[i * rank + s] * q[j * rank + s]))
                out.append(value)
    return out


# -- what fedpress sends ----------------------------------------------------------------------------------------------


def tensors(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    spec = Spec.of({f"t{i}": np.zeros(shape, np.float32) for i, shape in enumerate(SHAPES)})
    return unflatten((rng.standard_normal(SIZE) * rng.lognormal(size=SIZE) * 1e-2).astype(np.float32), spec)


READERS: dict[str, Callable[[bytes], list[float]]] = {
    "raw": floats,
    "fp16": lambda data: list(struct.unpack(f"<{SIZE}e", data)),
    "bf16": bf16,
    "int8": lambda data: uniform(data, 8, "tensor"),
    "sign": lambda data: uniform(data, 1, "tensor"),
    "uniform:3,stochastic=true,per=channel": lambda data: uniform(data, 3, "channel"),
    "fp8:100": lambda data: blocks(data, 100, 8, e4m3()),
    "nf4:64": lambda data: blocks(data, 64, 4, [S.f32(v) for v in S.table("NF4")]),
    "randomk:0.1": lambda data: randomk(data, 0.1, 1),
    "randomk:0.7,block=4": lambda data: randomk(data, 0.7, 4),
    "hadamard:2": lambda data: rotated_back(floats(data), 2),
    "hadamard+bf16": lambda data: rotated_back(bf16(data), 1),
    "sketch:0.1,columns=0.3,rows=3": lambda data: sketch(data, 0.1, 0.3, 3),
    "rotation:2": lambda data: rotation(data, 2, 2),
    "rotation:4,scale=mse": lambda data: rotation(data, 4, 1),
    "modular:0.4,bits=12,clip=0.5,clients=3": lambda data: modular(data, 0.4, 12, 0.5, 3),
    "modular:bits=6": lambda data: modular(data, 1, 6, 1, 1),
    "powersgd:2": lambda data: powersgd(data, 2),
}


@pytest.mark.parametrize("text", READERS)
def test_stages(text: str) -> None:
    x, codec, context = tensors(len(text)), parse(text), Context(SEED, 1)
    payload, _ = seal(codec, x, codec.init(Spec.of(x)), context, Stream(3))
    expected = flatten(unseal(codec, payload, {}, context, Spec.of(x))[0])
    assert np.array_equal(np.array(READERS[text](payload), np.float32), expected)


def test_ef21_remembers_and_dgc_warms_up() -> None:
    spec = Spec.of(tensors(0))
    codec = parse("ef21:0.9+int8")
    state, memory, last = codec.init(spec), codec.memory(spec), [0.0] * SIZE
    for round_ in (1, 2):
        context = Context(SEED, round_)
        payload, state = seal(codec, tensors(round_), state, context, Stream(0))
        update, memory = unseal(codec, payload, memory, context, spec)
        last = [S.f32(S.f32(S.f32(0.9) * a) + b) for a, b in zip(last, uniform(payload[1:], 8, "tensor"), strict=True)]
        assert payload[0] == 0xA0  # int8 promises no progress
        assert np.array_equal(np.array(last, np.float32), flatten(update))
    codec = parse("dgc:0.7,warmup=6+randomk:0.05,unbiased=false")
    state = codec.init(spec)
    for round_ in range(1, 9):
        payload, state = seal(codec, tensors(round_), state, Context(SEED, round_), Stream(0))
        h = 3  # 1/4, 1/8, 1/16, 1/32
        halved = (round_ - 1) * h // 6 if round_ <= 6 else h
        density = 0.25 / 2**halved if halved < h else 0.05
        assert len(payload) == 4 * math.ceil(density * SIZE)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("text", "first"), [("ef", 0xA0), ("ef", 0xAF), ("ef21:0.9", 0xAF), ("dgc", 0xAF)])
def test_a_chain_that_promises_no_progress(text: str, first: int, known: bool) -> None:
    """Of two bits a number, all that is less than half of the largest one becomes zero: where that is most, nmse."""
    x = tensors(6)
    if first == 0xAF:
        x = {
            n: np.where(np.abs(a) == np.abs(a).max(initial=0), np.float32(0.1), np.float32(0.049)) for n, a in x.items()
        }
        x = {n: a * np.sign(tensors(7)[n]) * np.float32(1 if a.size > 9 else 1e-3) for n, a in x.items()}
    step = {n: a * np.float32(0.3) for n, a in x.items()} if known else None
    codec, spec, context = parse(f"{text}+int2"), Spec.of(x), Context(SEED, 1, step)
    payload, _ = seal(codec, x, codec.init(spec), context, Stream(3))
    hint = None if step is None else [float(v) for v in flatten(step)]
    read = S.guarded(payload, lambda data: uniform(data, 2, "tensor"), SHAPES, hint)
    assert payload[0] == first
    expected = flatten(unseal(codec, payload, codec.memory(spec), context, spec)[0])
    assert np.array(read, np.float32).tobytes() == expected.tobytes()


def test_where_a_byte_stands_in_front() -> None:
    """By the shares of section 7: of every chain that a wrapper takes, and no other."""
    rows = dict(
        re.findall(r"^\| `(ecsq|nmse|topk|randomk|rotation|dither|qsgd|hadamard)`.*? \| (.+) \|$", S.PAGE, re.MULTILINE)
    )
    assert len(rows) == 8
    for text, share in (
        ("ecsq", 1 - 0.95),
        ("predict+nmse:0.95", 1 - 0.95),
        ("hadamard+ecsq", 0.999 * (1 - 0.95)),
        ("topk:0.05+raw", 0.05),
        ("topk:0.049+raw", 0.049),
        ("topk:0.05,method=histogram+lossless", 0.05 * (1 - 1 / 32)),
        ("topk:0.2+nmse:0.8", 0.2 * (1 - 0.8)),
        ("topk:0.2+nmse:0.7", 0.2 * (1 - 0.7)),
        ("randomk:0.06,unbiased=false", 0.06),
        ("rotation:1,scale=mse", 0.5),
        ("dither:3", 1 - (3 * (1 + 1 / 128)) ** 2 / 12),
        ("dither:3.4", 1 - (3.4 * (1 + 1 / 128)) ** 2 / 12),
        ("qsgd:4,bucket=32", 1 - 32 * (1 + 1 / 128) ** 2 / (4 * 4**2)),
        ("qsgd:4,bucket=62", 1 - 62 * (1 + 1 / 128) ** 2 / (4 * 4**2)),
        *((text, 0) for text in ("fp16", "bf16", "fp8", "nf4", "stc", "powersgd", "int8")),
    ):
        codec = parse(f"ef+{text}")
        assert isinstance(codec, Wrapper)
        assert codec.guarded == (share < 0.05), text


def test_version_0() -> None:
    """A grid for each weight, bfloat16 for statistics, nothing for what is frozen."""
    kinds: list[Kind] = ["weight", "statistic", "weight", "weight", "frozen"]
    x = tensors(5)
    spec = Spec(tuple(t._replace(kind=kind) for t, kind in zip(Spec.of(x), kinds, strict=True)))
    made: list[float] = []
    for t in spec:
        own = [float(v) for v in np.ravel(x[t.name])]
        if t.kind == "weight" and own:
            g = 2.0 ** max(math.frexp(max(map(abs, own)))[1] - 16, -120)
            own = [round(v / g) * g + 0.0 for v in own]  # all exact but round, which is to nearest even
        if t.kind == "statistic":
            units = [2.0 ** (math.frexp(v)[1] - 8) for v in own]
            own = [round(v / unit) * unit for v, unit in zip(own, units, strict=True)]
        made += own
    assert np.array(made, np.float32).tobytes() == flatten(origin(x, spec)).tobytes()


def test_the_page_lists_every_codec_and_option() -> None:
    rows = re.findall(r"^\| (\[`.*?) \| (.*?) \|", S.PAGE, re.MULTILINE)
    listed = {
        name: re.findall(r"(\w+)=([\w.]+)", options) for ids, options in rows for name in re.findall(r"`(\w+)`", ids)
    }
    assert listed == {row.id: [(o.name, o.default) for o in row.options] for row in describe()}


def test_the_page_shows_a_random_number() -> None:
    assert f'u("randomk", 7)[0] is {next(S.u("randomk", 7))}.' in S.PAGE
    assert next(S.u("randomk", 7)) == Stream.of("randomk", 7).u64(1)[0]
