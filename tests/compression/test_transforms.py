"""What the transforms, sketches and sums promise beyond the laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.hadamard import rotate, rotate_back, starts
from fedpress.compression.modular import Modular
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.powersgd import PowerSGD
from fedpress.compression.randomk import RandomK
from fedpress.compression.registry import parse
from fedpress.compression.rotation import Rotation
from fedpress.compression.sketch import Sketch
from fedpress.compression.sparse import largest, nearly_largest
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Array, Spec, Tensors

HUGE = float(np.finfo(np.float32).max)


def numbers(size: int, seed: int = 0) -> Array:
    """About normal, the same everywhere."""
    return (Stream.of("numbers", seed).uniform(12 * size).reshape(12, size).sum(axis=0) - 6).astype(np.float32)


def trip(text: str, tensors: Tensors, seed: int = 0) -> Tensors:
    codec, spec, context = parse(text), Spec.of(tensors), Context(seed, 1)
    payload, _ = seal(codec, tensors, codec.init(spec), context, Stream(seed))
    return unseal(codec, payload, NOTHING, context, spec)[0]


def nmse(x: Array, y: Array) -> float:
    return float(np.sum((x.astype(np.float64) - y) ** 2) / np.sum(x.astype(np.float64) ** 2))


# -- rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 65, 1000, 65535, 65536, 65537, 140000])
def test_rotation_keeps_length_and_is_undone(size: int, rounds: int) -> None:
    x = numbers(size)
    y = rotate(x, 3, rounds)
    assert y.size == size
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    assert np.abs(rotate_back(y, 3, rounds) - x).max(initial=0) < 1e-5


def test_rotation_is_as_described() -> None:
    """Signs from the stream, then the Walsh-Hadamard matrix of 8 over the root of 8; the last block overlaps."""
    x, block = np.arange(1, 13, dtype=np.float32), 8
    matrix = np.array([[(-1.0) ** (i & j).bit_count() for j in range(block)] for i in range(block)]) / math.sqrt(block)
    expected, words = x.astype(np.float64), Stream.of("hadamard", 9).u64(2)
    assert starts(12) == [0, 4]
    for at, word in zip((0, 4), words, strict=True):
        signs = np.array([1 - 2 * (int(word) >> i & 1) for i in range(block)])
        expected[at : at + block] = matrix @ (signs * expected[at : at + block])
    assert np.allclose(rotate(x, 9), expected, atol=1e-5)


def test_rotation_spreads_what_stood_alone() -> None:
    spike = np.zeros(100_000, np.float32)
    spike[7] = 1000
    assert np.abs(rotate(spike, 0)).max() < 20


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.0095)])
def test_rotation_errs_as_lloyd_and_max_say(bits: int, error: float) -> None:
    """Also for numbers that are nothing like normal."""
    x = {"x": numbers(70_000) ** 5}
    assert nmse(x["x"], trip(f"rotation:{bits},scale=mse", x)["x"]) == pytest.approx(error, rel=0.05)
    assert nmse(x["x"], trip(f"rotation:{bits}", x)["x"]) == pytest.approx(error / (1 - error), rel=0.05)


@pytest.mark.parametrize("sparse", [False, True])
def test_rotation_has_no_bias_to_speak_of(sparse: bool) -> None:
    """Two numbers of many are where a single Hadamard round fails: it would return one of them."""
    x = np.zeros(80, np.float32) if sparse else numbers(80)
    x[[3, 40]] = 2, 1
    decoded = [trip("rotation:1", {"x": x}, seed)["x"].astype(np.float64) for seed in range(2000)]
    noise = math.sqrt(0.57 / len(decoded))
    assert math.sqrt(nmse(x, np.mean(decoded, axis=0))) < 1.2 * noise


def test_rotation_refuses_scales_that_no_encoder_sends() -> None:
    spec = Spec.of({"x": np.zeros(64, np.float32)})
    for scale in (np.nan, np.inf, -1.0, -0.0, 2.0**-120, HUGE):
        with pytest.raises(DecodeError, match="scales"):
            unseal(Rotation(), np.float32(scale).tobytes() + bytes(8), NOTHING, Context(), spec)


# -- PowerSGD ---------------------------------------------------------------------------------------------------------


def test_powersgd_finds_the_best_rank_by_warm_start() -> None:
    """Rank 2 of a matrix with singular values 1/2^i: cold worse, warm as good as the best there is."""
    left, right = (np.linalg.qr(numbers(n * 8, n).reshape(n, 8))[0] for n in (40, 30))
    x = {"w": ((left * 0.5 ** np.arange(8)) @ right.T).astype(np.float32).reshape(40, 5, 6)}
    codec, spec = PowerSGD(2, "fp32"), Spec.of(x)
    best, state, errors = sum(0.25**i for i in range(2, 8)), codec.init(spec), []
    for _ in range(8):
        payload, state = seal(codec, x, state, Context(), Stream(0))
        errors.append(float(np.sum((unseal(codec, payload, NOTHING, Context(), spec)[0]["w"] - x["w"]) ** 2)))
    assert len(payload) == 4 * 2 * (40 + 30)
    assert errors[0] > 1.05 * best
    assert errors[-1] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("scale", [HUGE, 1.0, 1e-6, 1e-38, 0.0])
def test_powersgd_never_adds_to_the_error(dtype: str, scale: float) -> None:
    codec = PowerSGD(3, dtype)  # type: ignore[arg-type]
    x = {"w": np.clip(numbers(600).reshape(20, 30) / 6, -1, 1) * np.float32(scale)}
    spec, state = Spec.of(x), codec.init(Spec.of(x))
    for _ in range(3):
        payload, state = seal(codec, x, state, Context(), Stream(0))
        decoded, _ = unseal(codec, payload, NOTHING, Context(), spec)
        assert np.sum((decoded["w"].astype(np.float64) - x["w"]) ** 2) <= np.sum(np.square(x["w"], dtype=np.float64))
        assert all(np.all(np.isfinite(a)) for a in state.values())


def test_powersgd_outlives_an_update_of_zeros() -> None:
    codec, x = PowerSGD(1), {"w": np.zeros((9, 9), np.float32), "b": numbers(3)}
    _, state = seal(codec, x, codec.init(Spec.of(x)), Context(), Stream(0))
    x["w"] = np.outer(numbers(9, 1), numbers(9, 2))
    payload, _ = seal(codec, x, state, Context(), Stream(0))
    assert nmse(x["w"], unseal(codec, payload, NOTHING, Context(), Spec.of(x))[0]["w"]) < 1e-4


def test_powersgd_refuses_the_state_of_another_model() -> None:
    x = {"w": np.zeros((9, 9), np.float32)}
    for state in (NOTHING, {"w": np.zeros((8, 2), np.float32)}):
        with pytest.raises(SpecError, match="state of 'powersgd'"):
            seal(PowerSGD(), x, state, Context(), Stream(0))


# -- sketch -----------------------------------------------------------------------------------------------------------


def test_sketch_reads_the_largest_of_a_sum() -> None:
    """Of parameters that no single device would have sent, for its own noise is larger."""
    codec, context, spec = Sketch(0.005, columns=0.1), Context(seed=4), Spec.of({"x": np.zeros(2000, np.float32)})
    signal = np.zeros(2000, np.float32)
    signal[::200] = 3
    wires = [codec.encode({"x": signal + numbers(2000, i)}, NOTHING, context, Stream(0))[0] for i in range(30)]
    table = np.sum([w.rest["table"] for w in wires], axis=0, dtype=np.float32)
    assert table.shape == (5, 200)
    decoded = codec.decode(wires[0]._replace(rest={"table": table}), NOTHING, context, spec)[0]["x"]
    assert np.flatnonzero(decoded).tolist() == list(range(0, 2000, 200))
    assert np.all(np.abs(decoded[::200] - 90) < 40)


def test_sketch_hashes_as_described() -> None:
    x = {"x": np.array([1.0, 10.0, 100.0, 1000.0], np.float32)}
    wire, _ = Sketch(1.0, columns=0.75, rows=1).encode(x, NOTHING, Context(seed=6), Stream(0))
    table = [0.0, 0.0, 0.0]
    for value, number in zip(x["x"], Stream.of("sketch", 6, 0).u64(4), strict=True):
        table[(int(number) >> 1) % 3] += float(value) * (-1 if int(number) & 1 else 1)
    assert wire.rest["table"].tolist() == [table]


# -- sums of integers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["modular:1.0,bits=16,clip=4.0,clients=20", "modular:0.5,bits=12,clip=4.0,clients=20"])
def test_sum_of_payloads_decodes_to_the_sum(text: str) -> None:
    codec, spec, context = parse(text), Spec.of({"x": np.zeros(300, np.float32)}), Context(seed=8)
    assert isinstance(codec, Modular)
    updates = [numbers(300, i) / 6 for i in range(20)]
    payloads = [seal(codec, {"x": x}, NOTHING, context, Stream(i))[0] for i, x in enumerate(updates)]
    total = codec.added(payloads, spec)
    assert len(total) == len(payloads[0]) == max_bytes(codec, spec)
    decoded = unseal(codec, total, NOTHING, context, spec)[0]["x"]
    apart = sum(unseal(codec, p, NOTHING, context, spec)[0]["x"].astype(np.float64) for p in payloads)
    assert np.allclose(decoded, apart, atol=1e-4)
    bound = sum(math.sqrt(codec.error_bound({"x": x})) for x in updates) ** 2
    assert np.sum((decoded - np.sum(updates, axis=0, dtype=np.float64)) ** 2) <= bound


def test_a_sum_of_equal_updates_does_not_wrap_around() -> None:
    """All clients at the bound, all in the same direction, with as few bits as can hold them."""
    codec, x = Modular(1.0, bits=5, clip=3.0, clients=15), {"x": np.zeros(64, np.float32)}
    x["x"][5] = 3
    payloads = [seal(codec, x, NOTHING, Context(), Stream(i))[0] for i in range(15)]
    decoded = unseal(codec, codec.added(payloads, Spec.of(x)), NOTHING, Context(), Spec.of(x))[0]["x"]
    assert decoded[5] == pytest.approx(45, rel=0.2)


def test_modular_is_unbiased_within_its_clip() -> None:
    x, codec = numbers(100), Modular(0.4, bits=6, clip=12.0)
    context = [Context(seed) for seed in range(1500)]
    decoded = [
        unseal(codec, seal(codec, {"x": x}, NOTHING, c, Stream(c.seed))[0], NOTHING, c, Spec.of({"x": x}))[0]["x"]
        for c in context
    ]
    spread = np.std(decoded, axis=0) / math.sqrt(len(decoded))
    assert np.all(np.abs(np.mean(decoded, axis=0, dtype=np.float64) - x) <= 5 * spread)


def test_modular_refuses_what_it_cannot_add() -> None:
    spec = Spec.of({"x": np.zeros(10, np.float32)})
    codec = Modular(1.0, bits=4, clients=2)
    with pytest.raises(CodecError, match="at most 2 payloads"):
        codec.added([bytes(5)] * 3, spec)
    with pytest.raises(DecodeError, match="Expected 5 bytes"):
        codec.added([bytes(5), bytes(6)], spec)
    with pytest.raises(CodecError, match="1 to 7 clients for 4 bits"):
        Modular(1.0, bits=4, clients=8)


# -- sparsifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "block", "runs"), [(40, 4, 4), (41, 4, 5), (3, 10, 1), (1000, 64, 7)])
def test_random_blocks_are_whole_and_neighbours(size: int, block: int, runs: int) -> None:
    codec, x = RandomK(0.4, unbiased=False, block=block), {"x": np.arange(1, size + 1, dtype=np.float32)}
    wire, _ = codec.encode(x, NOTHING, Context(seed=2), Stream(0))
    values = wire.rest["values"].reshape(runs, -1)
    assert values.shape[1] == min(block, size)
    assert np.all((np.diff(values, axis=1) == 1) | (values[:, 1:] == 0))
    decoded, _ = codec.decode(wire, NOTHING, Context(seed=2), Spec.of(x))
    assert np.all((decoded["x"] == 0) | (decoded["x"] == x["x"]))
    assert np.count_nonzero(decoded["x"]) == np.count_nonzero(values)


@pytest.mark.parametrize("k", [1, 7, 100, 999, 1000])
def test_a_histogram_finds_k_of_nearly_the_largest(k: int) -> None:
    for x in (numbers(1000), numbers(1000) ** 9, np.zeros(1000, np.float32), np.repeat(numbers(10), 100)):
        chosen = nearly_largest(x, k)
        assert chosen.size == k
        assert np.all(np.diff(chosen) > 0)
        left = np.delete(np.abs(x), chosen)
        assert left.max(initial=0) <= np.abs(x[chosen]).min() * (1 + 1 / 128)
    assert np.array_equal(nearly_largest(np.repeat(numbers(10), 100), k), largest(np.repeat(numbers(10), 100), k))


@pytest.mark.parametrize(
    "codec",
    [Rotation(1), Rotation(4, "mse"), PowerSGD(1), PowerSGD(1, "fp32"), Modular(clip=2.0)],
    ids=lambda codec: codec.text,
)
@pytest.mark.parametrize("top", [HUGE, 2.0**-126, 2.0**-149, 0.0])
def test_the_ends_of_float32(codec: Stage, top: float) -> None:
    """No warning, no infinity, and no error beyond the bound where it cannot be what was sent."""
    x = {"x": np.full((9, 8), top, np.float32)}
    x["x"][:, ::3] *= -1
    decoded = trip(codec.text, x)["x"]
    assert np.sum((decoded.astype(np.float64) - x["x"]) ** 2) <= codec.error_bound(x) * (1 + 1e-6)
