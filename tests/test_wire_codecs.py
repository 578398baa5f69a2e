"""The entropy-coded formats of ``docs/codecs.md``, read by somebody who has only that page (``stranger.py`` and the
decoders here: no fedpress, no NumPy). They make of fedpress's payloads what fedpress makes of them, to the bit."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.deadzone import DeadZone
from fedpress.compression.grouped import per_group
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Kind, Spec, Tensors, TensorSpec, flatten, unflatten

_FOUND: Any = importlib.util.spec_from_file_location("stranger", Path(__file__).with_name("stranger.py"))
S: Any = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(S)
Shapes = list[tuple[int, ...]]
SHAPES: Shapes = [(40, 30), (30,), (), (0, 4), (3, 5, 17), *[(6,)] * 15]
CONTEXT = Context(11, 4)

# -- a stranger's decoders --------------------------------------------------------------------------------------------


def predict(data: bytes, shapes: Shapes, scale: float, s: list[float] | None) -> list[float]:
    """``predict:scale+ecsq`` and ``predict:scale+nmse``."""
    size, at = S.varint(data, 0)
    rest: list[float] = S.deadzone(data[at + size :], shapes, False, s)
    if size:
        assert data[at] == 0
        return rest
    assert s is not None
    return [S.f32(a + S.f32(S.f32(scale) * b)) for a, b in zip(rest, s, strict=True)]


def dither(data: bytes, shapes: Shapes, seed: int) -> list[float]:
    step, n = S.bf16(data[:2]), sum(map(math.prod, shapes))
    words = S.u("dither", seed, int.from_bytes(data[2:4], "little"))
    d = [(word >> 40) * 2.0**-24 - 0.5 + 2.0**-25 for word in islice(words, n)]
    levels = S.levels_of(data[4:], shapes, 32767, S.hint_of(d, [S.f32(0.15), S.f32(0.3), S.f32(0.42)]))
    return [S.f32(S.f32(level - noise) * step) for level, noise in zip(levels, d, strict=True)]


def scaled(data: bytes, shapes: Shapes, block: int, limit: int) -> list[float]:
    """``qsgd``; and ``terngrad``, a block of which is a tensor."""
    sizes = [min(block, size - at) for size in map(math.prod, shapes) for at in range(0, size, block)]
    scales = [S.bf16(data[2 * i : 2 * i + 2]) for i, size in enumerate(sizes) for _ in range(size)]
    levels = S.levels_of(data[2 * len(sizes) :], shapes, limit)
    return [S.f32(level * scale) for level, scale in zip(levels, scales, strict=True)]


def lossless(data: bytes, shapes: Shapes) -> list[float]:
    n = sum(map(math.prod, shapes))
    if data[0] == 0:
        return list(struct.unpack(f"<{n}f", data[1:]))
    flags, lowest, usual, common = struct.unpack("<BBBH", data[:5])
    size, at = S.varint(data, 5)
    ranks, at = S.levels_of(data[at : at + size], shapes, 277), at + size
    size, at = S.varint(data, at)
    exponents = [0 if r + usual == 0 else r + usual + lowest - 1 for r in ranks]
    ends = []
    for t, exponent in zip(S.levels_of(data[at : at + size], shapes, 277), exponents, strict=True):
        ends.append(t + min(common, 277) - (exponent if flags & 2 else 0) if exponent else 23 - t)
    patterns = [x << 23 | (1 << end) % 2**23 for x, end in zip(exponents, ends, strict=True)]
    bits, packed = iter(S.unpacked(data[at + size :], 1, 8 * len(data))), 0
    for b in (31, *range(22, 0, -1)):
        for i, end in enumerate(ends):
            if end < b if b < 31 else flags & 4 or patterns[i]:
                patterns[i], packed = patterns[i] | next(bits) << b, packed + 1
    assert len(data) == at + size + -(-packed // 8)
    return list(struct.unpack(f"<{n}f", struct.pack(f"<{n}I", *patterns)))


# -- what fedpress sends ----------------------------------------------------------------------------------------------


def tensors(seed: int, shapes: Shapes = SHAPES, spread: float = 3.0) -> Tensors:
    """Numbers with heavy tails, some rows livelier than others, as in updates."""
    rng = np.random.default_rng(seed)
    lively = rng.lognormal(0, spread / 2, sum(map(math.prod, shapes)))
    spec = Spec.of({f"t{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})
    return unflatten((rng.standard_normal(spec.size) * np.sort(lively) * 1e-3).astype(np.float32), spec)


def numbers(x: Tensors) -> list[float]:
    return [float(v) for v in flatten(x)]


def meet(text: str, x: Tensors, read: Callable[[bytes], list[float]], context: Context = CONTEXT) -> bytes:
    """Assert that ``read`` makes of the payload what fedpress does, to the bit; returns the payload."""
    codec, spec = parse(text), Spec.of(x)
    payload, _ = seal(codec, x, codec.init(spec), context, Stream(9))
    expected = flatten(unseal(codec, payload, codec.memory(spec), context, spec)[0])
    assert np.array(read(payload), np.float32).tobytes() == expected.tobytes()
    return payload


def test_the_example() -> None:
    """Section 10: the payloads, what they hold, and every bit with its probability."""
    x = {"w": np.array([[0, 0.5, -0.25], [0.125, 0, -1]], np.float32), "b": np.array([0.0625, 0], np.float32)}
    shapes: Shapes = [(2, 3), (2,)]
    payloads = dict(re.findall(r"^\| (?:`((?:ecsq|pred|nmse)\S+)`|payload) \| `([0-9a-f]+)` \|$", S.PAGE, re.MULTILINE))
    assert list(payloads) == [
        "",
        "ecsq:1,model=static",
        "ecsq:1,model=adaptive",
        "ecsq:1,ladder=true",
        "predict:0.5+ecsq:1",
        "nmse:0.2",
        "nmse:0.4,ladder=true",
    ]
    for text, shown in payloads.items():
        assert seal(parse(text or "ecsq:1"), x, NOTHING, CONTEXT, Stream(0))[0].hex() == shown
    values = S.deadzone(bytes.fromhex(payloads[""]), shapes)
    assert values == pytest.approx([0, 0.500687, 0, 0, 0, -0.999779, 0.062586, 0], abs=1e-6)
    assert predict(bytes.fromhex(payloads["predict:0.5+ecsq:1"]), shapes, 0.5, None) == values
    assert S.deadzone(bytes.fromhex(payloads["ecsq:1,ladder=true"]), shapes, ladder=True) == [
        0,
        0.5,
        0,
        0,
        0,
        -1,
        0.0625,
        0,
    ]
    assert S.halvings_of(bytes.fromhex("020c"), 2, 209 / 512) == ([0, 3], 2)
    questions = re.findall(r"^\| .*\?.*? \| (\d) \| (\d+) \| (\d+) \| (\d+) \|$", S.PAGE, re.MULTILINE)
    bits, *columns = zip(*(map(int, row) for row in questions), strict=True)
    assert len(bits) == 17
    for model, shown_p in zip(("static", "adaptive", "context"), columns, strict=True):
        key = "" if model == "context" else f"ecsq:1,model={model}"
        chunk = S.Chunk(bytes.fromhex(payloads[key])[8:], model, 32767)
        assert chunk.part(2, 3, 0, [0] * 6) + chunk.part(1, 2, 1, [0] * 2) == [0, 1, 0, 0, 0, -2, 1, 0]
        assert chunk.asked == list(zip(shown_p, bits, strict=True))


@pytest.mark.parametrize("code", ["nmse:0.5", "ecsq:3"])
@pytest.mark.parametrize("step", ["known", "unknown", "useless"])
@pytest.mark.parametrize("seed", range(2))
def test_the_default_upload(seed: int, step: str, code: str) -> None:
    """The second of two updates, with what the first one lost, and the step of the download between them; one that lies
    across the update is of no use."""
    codec, spec = parse(f"ef:0.9+predict:0.5+{code}"), Spec.of(tensors(seed))
    update = tensors(seed + 20)
    moved = {n: np.float32(-1.5 if step == "useless" else 0.7) * a for n, a in update.items()}
    _, state = seal(codec, tensors(seed), codec.init(spec), Context(5, 1), Stream(0))
    context = Context(6, 2, None if step == "unknown" else moved)
    payload, after = seal(codec, update, state, context, Stream(0))
    read = predict(payload, SHAPES, 0.5, None if step == "unknown" else numbers(moved))
    assert payload[0] == (step != "known")
    assert np.array(read, np.float32).tobytes() == flatten(unseal(codec, payload, NOTHING, context, spec)[0]).tobytes()
    # The residual, as section 7 has it.
    before = [float(state[f"residual/{t.name}"].reshape(-1)[i]) for t in spec for i in range(t.size)]
    c = [S.f32(a + S.f32(S.f32(0.9) * b)) for a, b in zip(numbers(update), before, strict=True)]
    lost = [S.f32(a - b) for a, b in zip(c, read, strict=True)]
    assert lost == [float(v) for t in spec for v in after[f"residual/{t.name}"].reshape(-1)]


@pytest.mark.parametrize("text", ["nmse:0.5,ladder=true", "ecsq:3,ladder=true"])
@pytest.mark.parametrize(("seed", "size"), [(0, 1), (1, 17), (2, 300), (3, 2000)])
def test_the_default_download(seed: int, size: int, text: str) -> None:
    shapes: Shapes = [(size // 10, 10), (size % 10,)]
    meet(text, tensors(seed, shapes), lambda data: S.deadzone(data, shapes, ladder=True))


@pytest.mark.parametrize("ladder", [False, True])
@pytest.mark.parametrize("text", ["nmse:0.5", "nmse:0.02", "ecsq:3", "ecsq:40"])
def test_quiet_tensors_have_finer_steps(text: str, ladder: bool) -> None:
    """Tensors a million times apart: halvings of 5 bits."""
    x = tensors(7)
    for scale, name in ((1e-6, "t1"), (1e-3, "t7")):
        x = {**x, name: x[name] * np.float32(scale)}
    data = meet(f"{text},ladder=true" if ladder else text, x, lambda data: S.deadzone(data, SHAPES, ladder))
    at, step = 2 if ladder else 4, S.bf16(bytes([data[0], data[1] & 127]))
    halved, _ = S.halvings_of(data[at:], 19, step)
    assert data[1] & 128
    assert halved[0] < 16 <= max(halved)


def test_a_direct_delta_has_a_step_for_each_tensor() -> None:
    shapes: Shapes = [(2, 3), (0,), (4,), (2,)]
    whole = [[3, 0, -5, 100, 1, 7], [], [0, 0, 0, 0], [32767, -1]]
    x = {
        f"t{i}": np.array(n, np.float32).reshape(shape) * np.float32(2.0**e)
        for i, (n, shape, e) in enumerate(zip(whole, shapes, (-3, 0, 0, -20), strict=True))
    }
    codec = parse("nmse:0.5,ladder=true")
    assert isinstance(codec, DeadZone)
    payload = codec.exact(x)
    assert payload is not None
    assert payload[:2] == bytes.fromhex("00be")  # 2^-3, and F
    assert S.halvings_of(payload[2:], 3, 2.0**-3) == ([0, 0, 17], 3)
    assert S.deadzone(payload, shapes, ladder=True) == numbers(x)


@pytest.mark.parametrize("rate", [0.01, 0.3, 1, 8])
@pytest.mark.parametrize(("model", "byte"), [("static", 1), ("adaptive", 2), ("context", 3)])
def test_every_entropy_model(model: str, byte: int, rate: float) -> None:
    """From nearly all zeros to levels in the hundreds, that take Exp-Golomb codes."""
    step = tensors(1)
    s = numbers(step)
    for seed, context in ((2, Context()), (3, Context(0, 1, step))):
        hinted = context.step is not None and model == "context"
        data = meet(f"ecsq:{rate},model={model}", tensors(seed), lambda d: S.deadzone(d, SHAPES, False, s), context)
        step = S.bf16(bytes([data[0], data[1] & 127]))
        taken = S.halvings_of(data[4:], len(SHAPES) - 1, step)[1] if data[1] & 128 else 0
        assert data[4 + taken] == byte + 128 * hinted


def test_levels_that_are_packed_and_zeros() -> None:
    """Of 0.004 times their root mean square, evenly spread numbers have levels of all sizes up to some hundred."""
    x = {"x": np.array([0.1, -0.2], np.float32)}
    assert meet("ecsq:0.004,model=static", x, lambda data: S.deadzone(data, [(2,)]))[4] == 0
    assert meet("ecsq:1", {"x": np.zeros(5, np.float32)}, lambda data: S.deadzone(data, [(5,)])) == b"\0\0"


def test_more_than_one_chunk() -> None:
    """Rows that fill no chunk, a row that is longer than one; next to nothing in them, so that it is quick."""
    shapes: Shapes = [(3,), (3, 100000), (2**18 + 9,), (1,)]
    whole = 2**18
    assert S.chunks(shapes) == [[(1, 3, 0), (2, 100000, 1)], [(1, 100000, 1)], [(1, whole, 2)], [(1, 9, 2), (1, 1, 3)]]
    spec = Spec.of({f"t{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})
    x = np.zeros(spec.size, np.float32)
    x[::9973] = 1
    meet("ecsq:3,model=adaptive", unflatten(x, spec), lambda data: S.deadzone(data, shapes))


@pytest.mark.parametrize("rate", [1, 4])
def test_dither(rate: float) -> None:
    meet(f"dither:{rate}", tensors(4), lambda data: dither(data, SHAPES, 11))


def test_qsgd_terngrad_stc() -> None:
    x = tensors(5)
    meet("qsgd:4,bucket=100", x, lambda data: scaled(data, SHAPES, 100, 4))
    meet("terngrad", x, lambda data: scaled(data, SHAPES, 10**9, 1))
    meet("stc:0.1", x, lambda data: [S.f32(v * S.bf16(data[:2])) for v in S.levels_of(data[2:], SHAPES, 1)])


def test_lossless() -> None:
    """Numbers of any size; differences of near ones, that all end at one place; and those at the ends of float32."""
    x = numbers(tensors(6))
    base = [S.f32(1 + i / 3000) for i in range(len(x))]
    difference = [S.f32(S.f32(a + b * 1e-3) - a) for a, b in zip(base, x, strict=True)]
    ends = [0.0, -0.0, 1e-45, -3e-39, 1.0, -1.5, 3.4e38] * 10
    flags = []
    for some in (x, difference, ends, ends[:1], ends[:3]):
        tensor = {"x": np.array(some, np.float32)}
        flags.append(meet("lossless", tensor, partial(lossless, shapes=[(len(some),)]))[0])
    assert flags == [1, 3, 5, 0, 0]


def test_each_kind_of_tensor_is_coded_by_itself() -> None:
    """Section 9: weights by the text, statistics to the bit, and nothing of what is frozen."""
    shapes: dict[str, tuple[int, ...]] = {"w": (20, 10), "mean": (10,), "v": (30,), "base": (7,), "variance": (10,)}
    kinds: dict[str, Kind] = {"mean": "statistic", "variance": "statistic", "base": "frozen"}
    spec = Spec(tuple(TensorSpec(n, shape, kind=kinds.get(n, "weight")) for n, shape in shapes.items()))
    x = dict(zip(shapes, tensors(8, list(shapes.values())).values(), strict=True))
    x["base"] = np.zeros(7, np.float32)
    codec = per_group(parse("ef:0.9+predict:0.5+nmse:0.5"), spec)
    payload, _ = seal(codec, x, codec.init(spec), CONTEXT, Stream(9))
    size, at = S.varint(payload, 0)
    weights, rest = payload[at : at + size], payload[at + size :]
    size, at = S.varint(rest, 0)
    read = {"weights": predict(weights, [(20, 10), (30,)], 0.5, None)}
    read["statistics"] = lossless(rest[at : at + size], [(10,), (10,)])
    assert rest[at + size :] == b""  # the frozen tensors
    found, _ = unseal(codec, payload, NOTHING, CONTEXT, spec)
    assert read["weights"] == numbers({n: found[n] for n in ("w", "v")})
    assert read["statistics"] == numbers({n: x[n] for n in ("mean", "variance")})
