"""Sensitivity: whatever a client does, one of them moves the sum by at most the bound."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.native import kernels
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError, PrivacyError, SpecError
from fedpress.params import Spec, Tensors, TensorSpec, flatten, unflatten, zeros
from fedpress.privacy import bounded
from fedpress.privacy.bounded import GRID, LARGEST_BOUND, LEAST_BOUND, Bounded, BoundedSum, clip
from fedpress.privacy.correlated import Banded
from fedpress.privacy.noise import Noise

SPEC = Spec(
    (
        TensorSpec("conv", (3, 2, 2, 2)),
        TensorSpec("none", (0, 4)),
        TensorSpec("scale", ()),
        TensorSpec("dense", (40, 30)),
    )
)
CODECS = (
    "ef:0.9+predict:0.5+ecsq:3.0",
    "ef+predict:0.5+ecsq:3.0",
    "topk:0.1+int8",
    "ef+topk:0.05+int8",
    "ef21+topk:0.2+int8",
    "dgc:0.9+topk:0.1+int8",
    "terngrad",
    "qsgd:1",
    "int2",
    "raw",
)
SEEDS = st.integers(0, 2**32 - 1)
BOUNDS = st.floats(1e-6, 1e6)
#: No noise to speak of: one step of the grid where the bound has 2^24.
FAINT = 1 / GRID


def gaussian(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    vector = np.random.default_rng(seed).standard_normal(SPEC.size) * size
    return unflatten(np.clip(vector, -3e38, 3e38).astype(np.float32), SPEC)


def norm(tensors: Tensors) -> float:
    return float(np.linalg.norm(flatten(tensors).astype(np.float64)))


def steps(update: Bounded) -> int:
    """The exact sum of squares in steps of the grid."""
    return sum(int(v) ** 2 for array in update.tensors.values() for v in array.flat)


def total(updates: Sequence[Bounded], bound: float, noise: Noise | None = None) -> dict[str, np.ndarray]:
    """What is released of ``updates``, with noise that is always the same."""
    gathered = BoundedSum(SPEC)
    gathered.clear(bound)
    for update in updates:
        gathered.fold(update)
    return gathered.release(FAINT, 1.0, noise or Noise.seeded(Stream(1)))


def decoded(text: str, updates: Sequence[Tensors]) -> list[Tensors]:
    """What a server decodes of a client that sends ``updates`` round after round; both sides keep their state."""
    codec = parse(text)
    sends, receives, out = codec.init(SPEC), codec.memory(SPEC), []
    for round_, update in enumerate(updates, 1):
        context = Context(seed=5, round=round_, step=gaussian(round_, 1e-3))
        payload, sends = seal(codec, update, sends, context, Stream.of("client", round_))
        arrived, receives = unseal(codec, payload, receives, context, SPEC)
        out.append(arrived)
    return out


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CODECS), SEEDS, st.lists(st.floats(-30, 17), min_size=1, max_size=5), BOUNDS, st.floats(0, 2))
def test_one_client_moves_the_sum_by_at_most_the_bound(
    text: str, seed: int, lengths: list[float], bound: float, scale: float
) -> None:
    """Of any length in any round, through any codec with the state that this builds up on both sides."""
    arrived = decoded(text, [gaussian(seed + i, 10.0**length) for i, length in enumerate(lengths)])[-1]
    one = clip(arrived, bound, scale)
    assert steps(one) <= GRID**2
    others = [clip(gaussian(seed + 100 + i), bound) for i in range(3)]
    with_, without = total([*others, one], bound), total(others, bound)
    moved = norm({name: np.subtract(with_[name], without[name], dtype=np.float64) for name in with_})
    assert moved <= bound * (1 + 1e-5)  # float32 of sums of several bounds; in integers it is exact


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CODECS), SEEDS, st.data())
def test_so_does_one_that_sends_no_honest_payload(text: str, seed: int, data: st.DataObject) -> None:
    codec = parse(text)
    context = Context(seed=5, round=1, step=gaussian(1, 1e-3))
    payload = bytearray(seal(codec, gaussian(seed), codec.init(SPEC), context, Stream(seed))[0])
    for at in data.draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=8)):
        payload[at] = data.draw(st.integers(0, 255))
    try:
        arrived, _ = unseal(codec, bytes(payload[: max_bytes(codec, SPEC)]), codec.memory(SPEC), context, SPEC)
    except DecodeError:
        return
    assert steps(clip(arrived, 1.0)) <= GRID**2


@pytest.mark.parametrize(
    ("text", "times"),
    [("ef:0.9+predict:0.5+ecsq:3.0", 1.15), ("ef+topk:0.05+int8", 2.3), ("terngrad", 1.5), ("qsgd:1", 2.3)],
)
def test_an_honest_client_that_clips_is_longer_when_decoded(text: str, times: float) -> None:
    """Why the server clips what it decoded."""
    steady = gaussian(1)
    clipped = [{n: a / norm(steady) for n, a in steady.items()}] * 15
    assert all(norm(x) <= 1 + 1e-6 for x in clipped)
    arrived = max(decoded(text, clipped), key=norm)
    assert norm(arrived) > times
    assert norm(total([clip(arrived, 1.0)], 1.0)) <= 1 + 1e-5


def test_what_is_inside_is_kept_but_for_the_grid() -> None:
    update = gaussian(1)
    one = clip(update, 2 * norm(update))
    assert one.inside
    step = one.bound / GRID
    for name, array in update.items():
        assert np.all(np.abs(one.tensors[name] * step - array) < step)
        assert np.all(np.abs(one.tensors[name] * step) <= np.abs(array))


@given(SEEDS, BOUNDS, st.floats(1.01, 1e9))
@settings(deadline=None, max_examples=30)
def test_what_is_outside_is_shortened_and_keeps_its_direction(seed: int, bound: float, times: float) -> None:
    update = gaussian(seed)
    one = clip(update, bound, times * bound / norm(update))
    assert not one.inside
    assert steps(one) > 0.999 * GRID**2
    cosine = sum(np.vdot(one.tensors[n].astype(np.float64), a.astype(np.float64)) for n, a in update.items())
    assert cosine / norm(update) / math.sqrt(steps(one)) == pytest.approx(1, abs=1e-6)


def test_a_scale_is_part_of_what_is_clipped() -> None:
    update = gaussian(1)
    length = norm(update)
    assert clip(update, length, 0.999).inside
    assert not clip(update, length, 1.001).inside
    assert not clip(update, length, -1.001).inside
    assert np.array_equal(clip(update, length, -0.5).tensors["dense"], -clip(update, length, 0.5).tensors["dense"])
    assert steps(clip(update, length, 0.0)) == 0


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1.0, 1e-30, 1e-45])
@pytest.mark.parametrize("bound", [LEAST_BOUND, 1.0, LARGEST_BOUND])
@pytest.mark.parametrize("spread", [False, True])
def test_no_size_of_numbers_passes_the_bound(value: float, bound: float, spread: bool) -> None:
    """One huge coordinate, all of them, denormals, and each far above and below the bound."""
    update = zeros(SPEC)
    update["dense"][(...,) if spread else (3, 4)] = value
    one = clip(update, bound)
    assert steps(one) <= GRID**2
    assert one.inside == (norm(update) <= bound)
    if not one.inside:
        assert steps(one) > 0.999 * GRID**2


def test_the_bound_holds_even_if_the_norm_is_computed_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is the check in integers, not the accuracy of a float."""
    short = SimpleNamespace(finite=kernels.finite, sum_squares=lambda x: kernels.sum_squares(x) * (1 - 1e-6))
    monkeypatch.setattr(bounded, "kernels", short)
    for few in (1, 2, 3, 1000):
        one = clip({"x": np.ones(few, np.float32)}, 1e-3)
        assert 0.999 * GRID**2 < steps(one) <= GRID**2


def test_at_the_very_bound_no_rounding_passes_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        few = rng.integers(1, 5)
        update = {"x": rng.standard_normal(few).astype(np.float32)}
        bound = norm(update) * (1 + rng.integers(-2, 3) * 2.0**-52)
        assert steps(clip(update, bound)) <= GRID**2


def test_a_bound_is_over_all_tensors_together() -> None:
    spec = Spec(tuple(TensorSpec(f"t{i}", (2,)) for i in range(200)))
    one = clip({t.name: np.ones(2, np.float32) for t in spec}, 1.0)
    assert 0.999 * GRID**2 < steps(one) <= GRID**2
    assert {int(v) for array in one.tensors.values() for v in array} == {GRID // 20}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    update = gaussian(1)
    with pytest.raises(PrivacyError, match="scale"):
        clip(update, 1.0, bad)
    update["conv"][0, 0, 0, 0] = bad
    with pytest.raises(PrivacyError, match="finite"):
        clip(update, 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf, 1e-30, 1e30])
def test_a_bound_that_cannot_be_is_refused(bound: float) -> None:
    with pytest.raises(PrivacyError, match="clip bound"):
        clip(gaussian(1), bound)
    with pytest.raises(PrivacyError, match="clip bound"):
        BoundedSum(SPEC).clear(bound)


def test_a_bounded_update_cannot_be_made_by_hand() -> None:
    huge = {t.name: np.full(t.shape, GRID, np.int64) for t in SPEC}
    with pytest.raises(PrivacyError, match="made by hand"):
        Bounded(huge, SPEC, 1.0, True, None)
    one = clip(gaussian(1), 1.0)
    with pytest.raises((PrivacyError, TypeError, ValueError)):
        dataclasses.replace(one, tensors=huge)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.bound = 2.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        one.tensors["dense"][:] = GRID
    with pytest.raises(TypeError):
        one.tensors["dense"] = huge["dense"]  # type: ignore[index]


def test_only_what_was_clipped_to_this_bound_is_summed() -> None:
    gathered = BoundedSum(SPEC)
    with pytest.raises(PrivacyError, match="clear"):
        gathered.fold(clip(gaussian(1), 1.0))
    gathered.clear(1.0)
    with pytest.raises(PrivacyError, match="clipped to 1, got one clipped to 2"):
        gathered.fold(clip(gaussian(1), 2.0))
    with pytest.raises(PrivacyError, match="got dict"):
        gathered.fold(gaussian(1))  # type: ignore[arg-type]
    with pytest.raises(SpecError):
        gathered.fold(clip({"x": np.zeros(3, np.float32)}, 1.0))
    gathered.fold(clip(gaussian(1), 1.0))
    gathered.fold(clip(gaussian(1, 1e-3), 1.0))
    assert (gathered.count, gathered.inside) == (2, 1)
    gathered.clear(1.0)
    assert (gathered.count, gathered.inside) == (0, 0)


def test_a_sum_is_released_once() -> None:
    gathered = BoundedSum(SPEC)
    gathered.clear(1.0)
    for multiplier in (0.0, -1.0, math.nan, math.inf, 2.0**30):
        with pytest.raises(PrivacyError, match="noise multiplier"):
            gathered.release(multiplier, 1.0, Noise.secret())
    for divisor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PrivacyError, match="divisor"):
            gathered.release(1.0, divisor, Noise.secret())
    gathered.release(1.0, 1.0, Noise.secret())
    with pytest.raises(PrivacyError, match="released once"):
        gathered.release(1.0, 1.0, Noise.secret())
    with pytest.raises(PrivacyError, match="released once"):
        gathered.release_correlated(1.0, 1.0, Noise.secret(), Banded(2), NOTHING)
    with pytest.raises(PrivacyError, match="released once"):
        gathered.fold(clip(gaussian(1), 1.0))
    gathered.clear(1.0)
    gathered.release(1.0, 1.0, Noise.secret())


def test_the_release_is_the_sum_over_the_divisor_with_noise_of_the_multiplier() -> None:
    spec = Spec((TensorSpec("a", (300, 700)), TensorSpec("b", ())))
    rng = np.random.default_rng(2)
    update = {"a": rng.standard_normal((300, 700)).astype(np.float32), "b": np.float32(1).reshape(())}
    gathered = BoundedSum(spec)
    for bound, multiplier, divisor in ((norm(update), 0.5, 8.0), (10.0, 2.0, 0.5)):
        gathered.clear(bound)
        for _ in range(3):
            gathered.fold(clip(update, bound))
        released = gathered.release(multiplier, divisor, Noise.seeded(Stream(4)))
        spec.check(released)
        mean = 3 * flatten(update).astype(np.float64) * min(1.0, bound / norm(update)) / divisor
        noise = (flatten(released) - mean) / (multiplier * bound / divisor)
        assert noise.mean() == pytest.approx(0, abs=0.01)
        assert noise.std() == pytest.approx(1, rel=0.01)


def test_of_nobody_noise_alone_is_released() -> None:
    gathered = BoundedSum(SPEC)
    gathered.clear(2.0)
    released = flatten(gathered.release(3.0, 4.0, Noise.seeded(Stream(1))))
    assert released.std() == pytest.approx(1.5, rel=0.1)


def test_the_order_of_updates_does_not_show() -> None:
    updates = [clip(gaussian(i, 10.0 ** (i - 5)), 1.0) for i in range(10)]
    forth, back = total(updates, 1.0), total(updates[::-1], 1.0)
    assert all(np.array_equal(forth[name], back[name]) for name in forth)


def test_what_is_released_depends_on_the_noised_integers_alone() -> None:
    """Two updates of the same integers are released to the same bits, whatever their floats said."""
    one = gaussian(1)
    other = {name: np.nextafter(array, np.float32(0)) for name, array in one.items()}
    bound = 1e3 * norm(one)  # the grid is coarse here, so that both fall on the same steps nearly everywhere
    a, b = clip(one, bound), clip(other, bound)
    released = [total([x], bound) for x in (a, b)]
    same = {n: a.tensors[n] == b.tensors[n] for n in a.tensors}
    assert np.mean(np.concatenate([s.ravel() for s in same.values()])) > 0.99
    assert all(np.array_equal(released[0][n][same[n]], released[1][n][same[n]]) for n in same)


def test_memory_is_a_few_models() -> None:
    spec = Spec((TensorSpec("a", (1000, 1000)),))
    update = {"a": np.ones((1000, 1000), np.float32)}
    gathered = BoundedSum(spec)
    gathered.clear(1.0)
    tracemalloc.start()
    for _ in range(3):
        gathered.fold(clip(update, 1.0))
    gathered.release(1.0, 1.0, Noise.seeded(Stream(1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 8 * spec.size
