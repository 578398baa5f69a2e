"""What the scalar codecs promise beyond the laws: number formats, dither between senders, exactness."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpress.compression import scales
from fedpress.compression.blockfloat import Fp8, Nf4
from fedpress.compression.codec import NOTHING, Codec, Context
from fedpress.compression.dither import Dither
from fedpress.compression.lossless import Lossless
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.qsgd import QSGD
from fedpress.compression.registry import parse
from fedpress.compression.stc import STC
from fedpress.compression.stream import Stream
from fedpress.compression.terngrad import TernGrad
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Array, Spec, Tensors, TensorSpec, flatten

HUGE = float(np.finfo(np.float32).max)
SCALAR = ("dither:2.0", "qsgd:16", "qsgd:1", "terngrad:0.0", "terngrad:2.5", "stc:0.2", "fp8:128", "nf4:64", "lossless")


def trip(codec: Codec, tensors: Tensors, seed: int = 0, sender: int = 0) -> dict[str, Array]:
    context, spec = Context(seed), Spec.of(tensors)
    payload, _ = seal(codec, tensors, NOTHING, context, Stream(sender))
    return dict(unseal(codec, payload, NOTHING, context, spec)[0])


def through(codec: Codec, values: Array, seed: int = 0, sender: int = 0) -> Array:
    return trip(codec, {"x": np.asarray(values, np.float32)}, seed, sender)["x"]


def normal(size: int) -> Array:
    return np.random.default_rng(size).standard_normal(size).astype(np.float32)


# -- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCALAR)
@pytest.mark.parametrize("top", [HUGE, 2.0**120, 1.0, 2.0**-99, 2.0**-126, 2.0**-149, 0.0])
def test_the_ends_of_float32(text: str, top: float) -> None:
    """No warning, nothing infinite, and an error within the bound, whatever is saturated or flushed to zero."""
    codec = parse(text)
    x = np.array([top, -top, top / 2, -top / 3, 0.0], np.float32)
    errors = [np.sum(np.square(through(codec, x, s, s).astype(np.float64) - x)) for s in range(200)]
    bound = codec.error_bound({"x": x})
    assert np.mean(errors) <= bound * (1 + 1e-6) + 4 * np.std(errors) / math.sqrt(len(errors))


@pytest.mark.parametrize("text", SCALAR)
def test_zeros_are_short_and_stay_zeros(text: str) -> None:
    codec, x = parse(text), {"a": np.zeros((40, 50), np.float32), "b": np.zeros(7, np.float32)}
    payload, _ = seal(codec, x, NOTHING, Context(), Stream(0))
    assert not flatten(unseal(codec, payload, NOTHING, Context(), Spec.of(x))[0]).any()
    if text not in ("fp8:128", "nf4:64"):
        assert len(payload) <= 32


@pytest.mark.parametrize("codec", [QSGD(16), TernGrad(), Fp8(), Nf4()])
def test_a_quiet_tensor_keeps_its_own_scale(codec: Codec) -> None:
    x: dict[str, Array] = {
        "loud": normal(50) * 1e6,
        "one": np.array(3.0, np.float32),
        "quiet": normal(50) * np.float32(1e-6),
    }
    decoded = trip(codec, x)
    assert decoded["one"] == pytest.approx(3.0, rel=1 / 16)
    assert 0 < np.abs(decoded["quiet"]).max() < 1e-5


@pytest.mark.parametrize("text", SCALAR)
def test_shapes_without_elements_between_others(text: str) -> None:
    x = {"none": np.zeros((0, 3), np.float32), "a": normal(3), "empty": np.zeros(0, np.float32), "b": normal(2)}
    decoded = trip(parse(text), x)
    Spec.of(x).check(decoded)
    if text == "lossless":
        assert np.array_equal(flatten(decoded), flatten(x))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("dither:0", "rate"),
        ("dither:nan", "rate"),
        ("qsgd:0", "levels"),
        ("qsgd:40000", "levels"),
        ("qsgd:4,bucket=0", "bucket"),
        ("terngrad:-1", "clip"),
        ("terngrad:nan", "clip"),
        ("stc:0", "density"),
        ("fp8:0", "block"),
        ("nf4:-3", "block"),
    ],
)
def test_options_out_of_range(text: str, word: str) -> None:
    with pytest.raises(CodecError, match=word):
        parse(text)


# -- scales -----------------------------------------------------------------------------------------------------------


@given(number=st.floats(2.0**-99, 2.0**127))
def test_scales_are_never_less_than_the_number_and_by_a_128th_more(number: float) -> None:
    scale = scales.rounded_up(number, 2.0**127)
    assert number <= float(scale[0]) <= number * (1 + 1 / 128)
    assert scales.from_bytes(scales.to_bytes(scale), 1, 2.0**127) == scale


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, -0.0, 2.0**-101, 2.0**113])
def test_scales_that_no_sender_makes_are_refused(bad: float) -> None:
    data = scales.to_bytes(np.array([1.0, bad], np.float32))
    with pytest.raises(DecodeError, match="scales of sensible size"):
        scales.from_bytes(data, 2, 2.0**112)


def test_blocks_end_with_their_tensor() -> None:
    spec = Spec((TensorSpec("a", (5,)), TensorSpec("none", (0,)), TensorSpec("b", ()), TensorSpec("c", (2, 2))))
    at, lengths = scales.blocks(spec, 2)
    assert at.tolist() == [0, 2, 4, 5, 6, 8]
    assert lengths.tolist() == [2, 2, 1, 1, 2, 2]
    assert [part.size for part in scales.blocks(Spec(()), 2)] == [0, 0]


# -- dither -----------------------------------------------------------------------------------------------------------


def test_senders_of_one_round_err_apart() -> None:
    """Alike updates of 16 senders: the error of their mean is a sixteenth. Under one common noise it would be all."""
    x = normal(2000)
    errors = [through(Dither(2.0), x, seed=3, sender=sender) - x for sender in range(16)]
    alone, together = np.mean(np.square(errors)), np.mean(np.square(np.mean(errors, axis=0)))
    assert together == pytest.approx(alone / 16, rel=0.2)


def test_the_error_is_uniform_whatever_the_number() -> None:
    for x in (np.full(4000, 0.3), normal(4000), np.eye(4000)[7]):
        error = through(Dither(1.0), x) - np.float32(x)
        step = float(scales.rounded_up(math.sqrt(np.mean(np.float32(x) ** 2.0)), 2.0**112)[0])
        assert np.abs(error).max() <= step / 2 * (1 + 1e-5)
        assert np.mean(np.square(error)) == pytest.approx(step**2 / 12, rel=0.08)


@pytest.mark.parametrize("rate", [1.0, 2.0, 2.85, 3.3])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 64, 700])
def test_no_draw_loses_more_than_is_promised(rate: float, size: int) -> None:
    for x in (np.ones(size), normal(size), np.eye(1, size)[0], 2.0 ** -np.arange(size).clip(max=60)):
        for seed in range(20):
            lost = np.sum(np.square(through(Dither(rate), x, seed, seed).astype(np.float64) - np.float32(x)))
            assert lost <= (1 - Dither(rate).keeps) * np.sum(np.square(np.float32(x), dtype=np.float64)) * (1 + 1e-6)


def test_knowing_the_noise_saves_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    x = {"x": (normal(20000) ** 3).reshape(100, 200)}
    informed = len(seal(Dither(6.0), x, NOTHING, Context(), Stream(0))[0])
    monkeypatch.setattr("fedpress.compression.dither._hint", lambda u: None)
    assert informed < 0.9 * len(seal(Dither(6.0), x, NOTHING, Context(), Stream(0))[0])


def test_one_huge_number_has_a_level_of_its_own() -> None:
    x = np.zeros(5000, np.float32)
    x[17] = 1e6
    mean = np.mean([through(Dither(2**-8), x, s, s)[17] for s in range(50)])
    assert mean == pytest.approx(1e6, rel=1e-4)


# -- stc, terngrad ----------------------------------------------------------------------------------------------------


def test_stc_sends_the_mean_of_the_largest_with_their_signs() -> None:
    decoded = through(STC(0.5), np.array([1.0, -9.0, 0.5, 8.0, -7.0, 0.0]))
    assert decoded.tolist() == [0.0, -8.0, 0.0, 8.0, -8.0, 0.0]
    assert through(STC(1.0), np.array([0.0, -0.0, 6.0, -2.0])).tolist() == [0.0, 0.0, 4.0, -4.0], "zeros are no signs"


def test_terngrad_cuts_off_at_multiples_of_the_root_mean_square() -> None:
    x = np.ones(1024, np.float32)
    x[0] = 100.0
    tops = {clip: float(np.abs(through(TernGrad(clip), x)).max()) for clip in (0.0, 2.5)}
    assert tops[0.0] == pytest.approx(100.0, rel=1 / 128)
    assert tops[2.5] == pytest.approx(2.5 * math.sqrt(np.mean(x**2)), rel=1 / 128)


# -- fp8, nf4 ---------------------------------------------------------------------------------------------------------


def test_e4m3_as_torch_has_it() -> None:
    torch = pytest.importorskip("torch")
    codes = np.delete(np.arange(256, dtype=np.uint8), [127, 255])
    exact = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    between = (np.sort(exact)[1:] + np.sort(exact)[:-1]) / 2
    x = np.concatenate([exact, between, normal(5000) * 100, normal(5000) * 0.01]).clip(-448, 448).astype(np.float32)
    x[0] = 448.0  # the scale is 1
    expected = torch.from_numpy(x).to(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(through(Fp8(1 << 20), x), expected)


def test_fp8_has_no_nan() -> None:
    spec = Spec((TensorSpec("x", (2,)),))
    for code in (0x7F, 0xFF):
        with pytest.raises(DecodeError, match="NaN"):
            unseal(Fp8(), scales.to_bytes(np.ones(1, np.float32)) + bytes([0, code]), NOTHING, Context(), spec)


def test_nf4_takes_the_nearest_of_its_sixteen_numbers() -> None:
    grid = through(Nf4(1 << 20), np.linspace(-1, 1, 4001))
    levels = np.unique(grid)
    assert levels.size == 16
    assert {-1.0, 0.0, 1.0} <= set(levels.tolist())
    x = normal(1000).clip(-1, 1)
    x[0] = 1.0
    nearest = levels[np.abs(x[:, None] - levels).argmin(axis=1)]
    assert np.allclose(np.abs(through(Nf4(1 << 20), x) - x), np.abs(nearest - x), atol=1e-7)


# -- lossless ---------------------------------------------------------------------------------------------------------


def sealed(x: Array) -> bytes:
    """The payload, once it came back to the bit."""
    tensors = {"x": np.asarray(x, np.float32)}
    payload, _ = seal(Lossless(), tensors, NOTHING, Context(), Stream(0))
    decoded, _ = unseal(Lossless(), payload, NOTHING, Context(), Spec.of(tensors))
    assert np.array_equal(decoded["x"].view(np.uint32), tensors["x"].view(np.uint32))
    return payload


@settings(max_examples=200, deadline=None)
@given(x=arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_lossless_to_the_bit(x: Array) -> None:
    assert len(sealed(x)) <= 1 + x.nbytes


def test_lossless_where_exponents_and_zeros_are_odd() -> None:
    for x in (
        np.array([0.0, -0.0, 0.0, -0.0] * 200),
        np.array([2.0**-149, -(2.0**-149), 2.0**-127, 0.0, -0.0, HUGE, -HUGE, 1.0] * 50),
        np.full(1000, -0.0),
        np.full(1000, math.pi),
        2.0 ** np.arange(-126, 128),
    ):
        assert len(sealed(x)) < 4 * x.size


def test_lossless_sees_what_says_nothing() -> None:
    """Noise takes 27 bits; a difference of float32 models ends in zeros; of zeros, next to nothing is said."""
    base = normal(20000)
    step = normal(20001)[1:] * np.float32(1e-3)
    sparse = np.where(np.arange(20000) % 100 == 0, base, np.float32(0))
    assert 26 < len(sealed(base)) * 8 / base.size < 27.5
    assert len(sealed((base + step) - base)) * 8 / base.size < 19.5
    assert len(sealed(sparse)) * 8 / base.size < 0.42
    assert len(sealed((base * 64).round() / 64)) * 8 / base.size < 10.5


@settings(max_examples=300, deadline=None)
@given(head=st.binary(min_size=5, max_size=5), seed=st.integers(0, 3))
def test_lossless_refuses_or_decodes_any_head(head: bytes, seed: int) -> None:
    """Offsets that lead out of a number's range, flags that fit nothing: refused, and never a numpy error."""
    tensors = {"x": normal(60 + seed)}
    payload, _ = seal(Lossless(), tensors, NOTHING, Context(), Stream(0))
    bad = (head + payload[5:])[: max_bytes(Lossless(), Spec.of(tensors))]
    try:
        decoded, _ = unseal(Lossless(), bad, NOTHING, Context(), Spec.of(tensors))
    except DecodeError:
        return
    assert np.isfinite(decoded["x"]).all()
