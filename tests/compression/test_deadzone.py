"""Steps and the format of ``ecsq`` and ``nmse``: what is lost is what was asked for, some of every tensor arrives, and
what no sender makes is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpress.compression import deadzone, entropy, steps, twin
from fedpress.compression.codec import NOTHING, Context, Loss
from fedpress.compression.deadzone import DeadZone
from fedpress.compression.nmse import Nmse
from fedpress.compression.payload import seal, sealed, unseal
from fedpress.compression.registry import parse
from fedpress.compression.steps import LAG, SMALL_LOSS, Energy, halvings
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors

Vector = NDArray[np.float32]
SHAPES = ("gaussian", "laplace", "uniform")


def drawn(shape: str, size: int, seed: int = 0) -> Vector:
    """float32[size] of about unit size."""
    rng = np.random.default_rng(seed)
    draw = {"gaussian": rng.standard_normal, "laplace": rng.laplace, "uniform": lambda size: rng.uniform(-1, 1, size)}
    return np.asarray(draw[shape](size=size), np.float32)


def loss_of(text: str, tensors: Tensors) -> tuple[Loss, dict[str, float]]:
    """Of the update, and each tensor's share."""
    made = sealed(parse(text), tensors, NOTHING, Context(), Stream(0))
    arrived = unseal(parse(text), made.payload, NOTHING, Context(), Spec.of(tensors))[0]
    assert all(np.array_equal(a, arrived[n]) for n, a in made.arrived.items())
    assert Loss.of(tensors, arrived) == made.loss
    return made.loss, {n: Loss.of({n: a}, {n: arrived[n]}).share for n, a in tensors.items()}


def dead_zone(x: Vector, step: float) -> float:
    """The share that is lost, without centroids, by the definition."""
    x = np.abs(x).astype(np.float64)
    return float(np.sum((x - np.floor(x / step + 1 / 3) * step) ** 2) / np.sum(x**2))


# -- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [0.05, 0.3, 1.0, 1.4, 3.0])
def test_an_estimated_loss_is_near_the_true_one(shape: str, step: float) -> None:
    x = drawn(shape, 20_000)
    assert Energy.counted(x).lost(step) == pytest.approx(dead_zone(x, step), rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.4, 0.8])
def test_the_coarsest_step_loses_the_share(shape: str, share: float) -> None:
    x = drawn(shape, 20_000)
    energy = Energy.counted(x)
    step = energy.coarsest(share, 100.0)
    assert dead_zone(x, step) == pytest.approx(share, rel=0.2)
    assert energy.lost(step) <= share < energy.lost(step * (1 + 1 / 8))
    assert energy.coarsest(share, step / 3) <= step / 3


def test_energies_of_parts_add_up() -> None:
    parts = [drawn("laplace", 500, i) * np.float32(10.0**-i) for i in range(4)]
    together, whole = Energy.together([Energy.counted(x) for x in parts]), Energy.counted(np.concatenate(parts))
    assert np.array_equal(together.sizes, whole.sizes)
    assert np.array_equal(together.of, whole.of)
    assert together.total == whole.total
    assert Energy.together([]).lost(1.0) == 0


def test_halvings_are_no_more_than_needed() -> None:
    loud, quiet, nothing, tiny = (Energy.counted(drawn("gaussian", 1000) * np.float32(s)) for s in (1, 2e-6, 0, 1e-30))
    found = halvings([loud, quiet, nothing, tiny], [1000] * 4, 1.0)
    assert found[0] == found[2] == 0
    assert quiet.lost(2.0 ** -found[1]) <= LAG < quiet.lost(2.0 ** (1 - found[1]))
    assert found[3] == steps.MOST_HALVINGS
    assert halvings([quiet], [1000], 1.0, most=5) == [5]


# -- what is lost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gaussian", "laplace"])
@pytest.mark.parametrize("size", [1000, 30_000])
@pytest.mark.parametrize("lost", [0.02, 0.1, 0.3, 0.5, 0.8])
def test_nmse_loses_what_it_may_and_no_more(shape: str, size: int, lost: float) -> None:
    x = {"x": drawn(shape, size, size)}
    assert 0.6 * lost <= loss_of(f"nmse:{lost}", x)[0].share <= lost
    assert 0.15 * lost <= loss_of(f"nmse:{lost},ladder=true", x)[0].share <= lost


@pytest.mark.parametrize("text", ["nmse:0.5", "nmse:0.9", "ecsq:3", "ecsq:20", "nmse:0.5,ladder=true"])
def test_small_tensors_arrive_nearly_whole(text: str) -> None:
    """Biases beside matrices, a thousandth of their size."""
    x: dict[str, Any] = {f"bias{i}": drawn("gaussian", 30, i) * np.float32(1e-3) for i in range(5)}
    x["weight"] = drawn("gaussian", 40_000).reshape(200, 200)
    each = loss_of(text, x)[1]
    assert max(share for name, share in each.items() if name != "weight") <= 1.2 * SMALL_LOSS


@pytest.mark.parametrize("text", ["nmse:0.5", "nmse:0.95", "ecsq:3", "ecsq:100", "nmse:0.5,ladder=true"])
def test_no_tensor_waits_for_ever(text: str) -> None:
    x = {"loud": drawn("laplace", 4000), "quiet": drawn("gaussian", 4000, 1) * np.float32(1e-6)}
    assert loss_of(text, x)[1]["quiet"] <= LAG + 0.01


# -- the format -------------------------------------------------------------------------------------------------------

TWO = Spec.of({"a": np.zeros((4, 5), np.float32), "none": np.zeros((0, 3), np.float32), "b": np.zeros(3, np.float32)})


def halved(step: float, width: int, packed: bytes) -> bytes:
    """A payload of ``nmse`` with ladder for ``TWO``: zeros, under any halvings."""
    word = int(np.float32(step).view(np.uint32)) >> 16 | 0x8000
    levels = entropy.encode(np.zeros(TWO.size, np.int16), TWO, deadzone.LIMIT)
    return word.to_bytes(2, "little") + bytes([width]) + packed + levels


@pytest.mark.parametrize(
    ("step", "width", "packed", "message"),
    [
        (1.0, 0, b"", "1 to 5 bits, got 0"),
        (1.0, 6, bytes(2), "1 to 5 bits, got 6"),
        (1.0, 255, bytes(40), "1 to 5 bits, got 255"),
        (1.0, 3, bytes([0b011_000]), "need 3 bits"),
        (2.0**-99, 2, bytes([0b11_00]), "sensible size"),
        (2.0**-101, 1, bytes([0b10]), "sensible size"),
        (0.0, 1, bytes([0b10]), "sensible size"),
        (1.0, 1, bytes([0b110]), "zeros in the last"),
    ],
)
def test_halvings_that_no_sender_makes_are_refused(step: float, width: int, packed: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        unseal(Nmse(ladder=True), halved(step, width, packed), NOTHING, Context(), TWO)


def test_halvings_that_a_sender_may_make_are_taken() -> None:
    for step, width, packed in (
        (1.0, 1, b"\0"),
        (1.0, 5, bytes([0b111_00000, 0b11])),
        (2.0**-99, 2, b"\x08"),
    ):
        decoded, _ = unseal(Nmse(ladder=True), halved(step, width, packed), NOTHING, Context(), TWO)
        TWO.check(decoded)


def test_a_payload_that_ends_too_early_is_refused() -> None:
    x = {
        "a": drawn("laplace", 20).reshape(4, 5),
        "none": np.zeros((0, 3), np.float32),
        "b": np.float32(1e-5) * drawn("laplace", 3),
    }
    payload, _ = seal(Nmse(), x, NOTHING, Context(), Stream(0))
    assert payload[1] & 0x80
    for size in range(len(payload)):
        with pytest.raises(DecodeError):
            unseal(Nmse(), payload[:size], NOTHING, Context(), TWO)


# -- exact ------------------------------------------------------------------------------------------------------------


def exact(tensors: Tensors, text: str = "nmse:0.5,ladder=true") -> bytes | None:
    codec = parse(text)
    assert isinstance(codec, DeadZone)
    return codec.exact(tensors)


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.lists(st.lists(st.integers(-32767, 32767), max_size=20), min_size=1, max_size=4),
    exponents=st.lists(st.integers(-20, -3), min_size=4, max_size=4),
    text=st.sampled_from(("nmse:0.5,ladder=true", "ecsq:3,ladder=true")),
)
def test_whole_multiples_travel_exactly(numbers: list[list[int]], exponents: list[int], text: str) -> None:
    x = {
        f"t{i}": np.array(some, np.float32) * np.float32(2.0**e)
        for i, (some, e) in enumerate(zip(numbers, exponents, strict=False))
    }
    payload = exact(x, text)
    assert payload is not None
    decoded, _ = unseal(parse(text), payload, NOTHING, Context(), Spec.of(x))
    assert all(np.array_equal(a, decoded[n]) for n, a in x.items())


@pytest.mark.parametrize(
    "x",
    [
        [0.1],  # 24 bits of mantissa
        [2.0**20, 2.0**-4],  # too far apart for levels of 15 bits
        [2.0**113],
        [2.0**-102],
    ],
)
def test_what_is_no_multiple_has_no_exact_payload(x: list[float]) -> None:
    assert exact({"x": np.array(x, np.float32)}) is None


def test_exact_payloads_are_of_ladders_and_of_steps_not_too_far_apart() -> None:
    x = {"x": np.array([2.0**20], np.float32), "y": np.array([2.0**-11], np.float32)}
    assert exact(x) is not None
    assert exact({**x, "y": x["y"] / 2}) is None
    assert exact(x, "nmse:0.5") is None
    assert exact({"x": np.zeros(3, np.float32)}) == exact({}) == b"\0\0"
    assert exact({}, "nmse:0.5") is None


# -- everywhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["nmse:0.4", "ecsq:2", "nmse:0.4,ladder=true"])
def test_the_same_bytes_without_a_compiler(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' twins find the same steps, halvings, levels and losses."""
    rng = np.random.default_rng(3)
    x = {f"t{i}": drawn("laplace", int(rng.integers(0, 400)), i) * np.float32(10.0 ** -(2 * i)) for i in range(5)}
    payload, _ = seal(parse(text), x, NOTHING, Context(), Stream(0))
    for module in (deadzone, steps):
        monkeypatch.setattr(module, "kernels", twin)
    assert seal(parse(text), x, NOTHING, Context(), Stream(0))[0] == payload
    assert math.isfinite(loss_of(text, x)[0].share)
