"""What each codec promises beyond the laws."""

from __future__ import annotations

import numpy as np
import pytest

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.half import Bf16, Fp16
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.randomk import RandomK, draw
from fedpress.compression.raw import Raw
from fedpress.compression.registry import parse
from fedpress.compression.sparse import largest
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.compression.uniform import Uniform
from fedpress.errors import DecodeError
from fedpress.params import Array, Spec

HUGE = np.finfo(np.float32).max


def through(codec: Stage, *values: float) -> list[float]:
    tensors = {"x": np.array(values, np.float32)}
    payload, _ = seal(codec, tensors, NOTHING, Context(), Stream(0))
    return [float(v) for v in unseal(codec, payload, NOTHING, Context(), Spec.of(tensors))[0]["x"]]


def test_raw_decodes_without_a_copy() -> None:
    payload = bytearray(np.arange(6, dtype="<f4").tobytes())
    spec = Spec.of({"a": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)})
    decoded, _ = unseal(Raw(), payload, NOTHING, Context(), spec)
    payload[-4:] = np.float32(9).tobytes()
    assert decoded["b"].tolist() == [4.0, 9.0]


def test_half_precision_rounds_to_even_and_saturates() -> None:
    tie = 1 + 2.0**-11
    assert through(Fp16(), tie, 1 + 3 * 2.0**-11, 1e5, -65519.9, 2.0**-24) == [
        1.0, 1 + 2.0**-9, 65504.0, -65504.0, 2.0**-24
    ]  # fmt: skip
    assert through(Bf16(), 1 + 2.0**-8, 1 + 3 * 2.0**-8, HUGE, -HUGE, 2.0**-133) == [
        1.0, 1 + 2.0**-6, 2.0**128 - 2.0**120, -(2.0**128 - 2.0**120), 2.0**-133
    ]  # fmt: skip


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_uniform_at_the_ends_of_float32(bits: int, stochastic: bool) -> None:
    """No warning, no infinity, also where the scale would overflow, vanish, or be flushed to zero."""
    for top in (HUGE, 1.0, 2.0**-126, 2.0**-149, 0.0):
        decoded = through(Uniform(bits, stochastic), top, -top)
        assert np.all(np.isfinite(decoded))
        assert decoded[0] == pytest.approx(top, rel=1e-6, abs=127 * 2.0**-126)


def test_uniform_rounds_half_to_even() -> None:
    assert through(Uniform(3), 3.0, 0.5, 1.5, 2.5, -0.5, -2.5) == [3.0, 0.0, 2.0, 2.0, 0.0, -2.0]


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    assert through(Uniform(1), 1.0, -2.0, 3.0, 0.0) == [1.5, -1.5, 1.5, 1.5]


def test_channels_have_scales_of_their_own() -> None:
    x = {"w": np.array([[1.0, 0.5], [1e-6, -1e-6]], np.float32)}
    for text, small in (("int8", 0.0), ("int8:per=channel", 1e-6)):
        payload, _ = seal(parse(text), x, NOTHING, Context(), Stream(0))
        decoded, _ = unseal(parse(text), payload, NOTHING, Context(), Spec.of(x))
        assert decoded["w"][1, 0] == pytest.approx(small)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, -0.0, 2.0**-149, HUGE])
def test_uniform_refuses_scales_that_no_encoder_sends(scale: float) -> None:
    spec = Spec.of({"x": np.zeros(2, np.float32)})
    with pytest.raises(DecodeError, match="scales"):
        unseal(Uniform(), np.float32(scale).tobytes() + b"\x7f\x7f", NOTHING, Context(), spec)


def test_uniform_refuses_the_integer_that_is_never_used() -> None:
    spec = Spec.of({"x": np.zeros(2, np.float32)})
    with pytest.raises(DecodeError, match="integers up to 254, got 255"):
        unseal(Uniform(), np.float32(1).tobytes() + b"\x7f\xff", NOTHING, Context(), spec)


def test_topk_is_exact_and_ties_go_to_the_lower_index() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.integers(-4, 5, 40).astype(np.float32)
        k = int(rng.integers(1, 41))
        expected = sorted(sorted(range(40), key=lambda i: (-abs(x[i]), i))[:k])
        assert largest(x, k).tolist() == expected


def test_topk_keeps_one_of_few_and_never_more_than_all() -> None:
    assert [parse("topk:0.1").stages[0].kept(n) for n in (0, 1, 9, 11, 100)] == [0, 1, 1, 2, 10]  # type: ignore[union-attr]


def test_topk_spans_tensors() -> None:
    x: dict[str, Array] = {"a": np.ones(5, np.float32), "b": np.array([[9.0, -8.0]], np.float32)}
    codec = parse("topk:0.25")
    payload, _ = seal(codec, x, NOTHING, Context(), Stream(0))
    decoded, _ = unseal(codec, payload, NOTHING, Context(), Spec.of(x))
    assert decoded["a"].tolist() == [0.0] * 5
    assert decoded["b"].tolist() == [[9.0, -8.0]]


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 1), (3, 10), (5, 10), (9, 10), (10, 10), (40, 4000)])
def test_random_k_draws_distinct_indices_evenly(k: int, n: int) -> None:
    counts = np.zeros(n)
    for seed in range(500):
        indices = draw(seed, k, n)
        assert indices.size == k
        assert np.all(np.diff(indices) > 0)
        counts[indices] += 1
    expected = 500 * k / n
    assert np.all(np.abs(counts - expected) <= 5.5 * np.sqrt(expected + 1))


def test_random_k_draws_as_described() -> None:
    """The first k distinct numbers of the stream modulo n, drawn one by one."""
    stream, found = Stream.of("randomk", 11), []
    while len(found) < 45:
        index = int(stream.u64(1)[0]) % 100
        if index not in found:
            found.append(index)
    assert draw(11, 45, 100).tolist() == sorted(found)


def test_random_k_may_be_summed_before_decoding() -> None:
    codec, context = RandomK(0.4), Context(seed=5)
    a, b = ({"x": np.arange(10, dtype=np.float32) * s} for s in (1, -3))
    wires = [codec.encode(x, NOTHING, context, Stream(0))[0] for x in (a, b)]
    rest = {"values": wires[0].rest["values"] + wires[1].rest["values"]}
    total, _ = codec.decode(wires[0]._replace(rest=rest), NOTHING, context, Spec.of(a))
    parts = [codec.decode(w, NOTHING, context, Spec.of(a))[0]["x"] for w in wires]
    assert np.array_equal(total["x"], parts[0] + parts[1])


@pytest.mark.parametrize("head", [b"\xff\xff\xff\xff\x7f", b"\x80" * 40, b"\x51"])
def test_chain_refuses_lengths_beyond_the_payload(head: bytes) -> None:
    codec, spec = parse("topk:1+raw"), Spec.of({"x": np.zeros(20, np.float32)})
    with pytest.raises(DecodeError, match=r"of a stage|a length"):
        unseal(codec, head.ljust(81, b"\0"), NOTHING, Context(), spec)


def test_chain_has_one_way_to_write_a_length() -> None:
    codec, x = parse("topk:0.1+int8"), {"x": np.arange(200, dtype=np.float32)[::-1].copy()}
    payload, _ = seal(codec, x, NOTHING, Context(), Stream(0))
    padded = bytes([payload[0] | 0x80, 0]) + payload[1:]
    assert len(padded) <= max_bytes(codec, Spec.of(x)), "refused for its size alone"
    with pytest.raises(DecodeError, match="as few bytes as possible"):
        unseal(codec, padded, NOTHING, Context(), Spec.of(x))
