"""The compiled kernels and their NumPy twins give the same bytes, and take and refuse the same."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpress.compression import native, twin
from fedpress.params import Array

pytestmark = pytest.mark.skipif(native.compiled is None, reason="no compiler was at hand")
kernels: ModuleType = native.compiled or twin
models = st.sampled_from((twin.STATIC, twin.ADAPTIVE, twin.CONTEXT))
numbers = arrays(np.float32, st.integers(0, 200), elements=st.floats(-(2.0**60), 2.0**60, width=32))


@st.composite
def chunks(draw: Any) -> tuple[Array, Array | None, Array]:
    """Levels, hint and parts: sparse and dense, small and large."""
    shapes = draw(
        st.lists(st.tuples(st.integers(1, 8), st.integers(1, 50), st.integers(0, 40)), min_size=1, max_size=3)
    )
    parts = np.array(shapes, np.int64)
    size = int((parts[:, 0] * parts[:, 1]).sum())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = np.clip(rng.standard_t(1.2, size) * draw(st.sampled_from((1, 5, 100))), -32767, 32767)
    levels = (sizes * (rng.random(size) < draw(st.sampled_from((0, 0.01, 0.1, 1))))).astype(np.int16)
    return levels, draw(st.sampled_from((None, rng.integers(-3, 4, size).astype(np.int8)))), parts


@settings(max_examples=60, deadline=None)
@given(chunk=chunks(), model=models, flips=st.lists(st.integers(0, 2**20), max_size=4))
def test_levels(chunk: tuple[Array, Array | None, Array], model: int, flips: list[int]) -> None:
    levels, hint, parts = chunk
    out, other = np.zeros(40 * levels.size + 50, np.uint8), np.zeros(40 * levels.size + 50, np.uint8)
    size = kernels.levels_encode(levels, hint, parts, model, out)
    assert size == twin.levels_encode(levels, hint, parts, model, other)
    data = out[:size].copy()
    assert np.array_equal(data, other[:size])
    for decode in (kernels.levels_decode, twin.levels_decode):
        found = np.zeros_like(levels)
        assert decode(data, hint, parts, model, 32767, found)
        assert np.array_equal(found, levels)
    for room in range(max(2, size - 3), size + 8):
        assert kernels.levels_encode(levels, hint, parts, model, out[:room]) == twin.levels_encode(
            levels, hint, parts, model, other[:room]
        )
    for flip in flips:
        data[flip // 8 % size] ^= 1 << flip % 8
    one, two = np.zeros_like(levels), np.zeros_like(levels)
    good = kernels.levels_decode(data, hint, parts, model, 50, one)
    assert good == twin.levels_decode(data, hint, parts, model, 50, two)
    assert not good or np.array_equal(one, two)


@given(chunk=chunks(), model=models, data=st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_levels_from_anywhere(chunk: tuple[Array, Array | None, Array], model: int, data: bytes) -> None:
    levels, hint, parts = chunk
    for start in (b"", b"\x60\x20", b"\x60\x20\xff\xff\xff\xff"):
        given = np.frombuffer(start + data, np.uint8)
        one, two = np.zeros_like(levels), np.zeros_like(levels)
        good = kernels.levels_decode(given, hint, parts, model, 50, one)
        assert good == twin.levels_decode(given, hint, parts, model, 50, two)
        assert not good or np.array_equal(one, two)


@settings(max_examples=60, deadline=None)
@given(x=numbers, inverse=st.floats(2**-10, 2**10, width=32), copies=st.integers(0, 700))
def test_vectors(x: Array, inverse: float, copies: int) -> None:
    x = np.concatenate([x] * (1 + copies))
    assert kernels.sum_squares(x) == twin.sum_squares(x)
    ours, theirs = np.ones(4096, np.int64), np.zeros(4096, np.int64)
    kernels.histogram(x, ours)
    twin.histogram(x, theirs)
    assert np.array_equal(ours, theirs)
    levels, others = np.zeros(x.size, np.int16), np.zeros(x.size, np.int16)
    assert kernels.quantise(x, inverse, levels) == twin.quantise(x, inverse, others)
    assert np.array_equal(levels, others)
    assert kernels.lost(x, levels, 0.37, -0.1, 0.2) == twin.lost(x, levels, 0.37, -0.1, 0.2)
    found = []
    for which in (kernels, twin):
        values, total = np.zeros(x.size, np.float32), np.ones(x.size)
        which.values(levels, 0.37, -0.1, 0.2, values)
        which.fold(total, values, 0.3)
        which.plus(x, inverse, values, values)
        found.append(values.tobytes() + total.tobytes())
    assert found[0] == found[1]


@given(x=numbers, bad=st.sampled_from((np.nan, np.inf, -np.inf)), at=st.integers(0, 10**6))
def test_finite(x: Array, bad: float, at: int) -> None:
    assert kernels.finite(x)
    if x.size:
        x = x.copy()
        x[at % x.size] = bad
        assert not kernels.finite(x)
        assert not twin.finite(x)


@given(key=st.integers(0, 2**64 - 1), at=st.integers(0, 2**40), size=st.integers(0, 40), width=st.integers(1, 8))
def test_random_numbers_and_packing(key: int, at: int, size: int, width: int) -> None:
    found = []
    for which in (kernels, twin):
        words, uniform = np.zeros(size, np.uint64), np.zeros(size, np.float32)
        which.numbers(key, at, words)
        which.uniform(key, at, uniform)
        values = (words % np.uint64(1 << width)).astype(np.uint8)
        packed, unpacked = np.zeros((size * width + 7) // 8, np.uint8), np.zeros(size, np.uint8)
        which.pack(values, width, packed)
        which.unpack(packed, width, unpacked)
        assert np.array_equal(values, unpacked)
        found.append(words.tobytes() + uniform.tobytes() + packed.tobytes())
    assert found[0] == found[1]


def test_lengths_are_checked() -> None:
    levels, parts, out = np.zeros(6, np.int16), np.array([(2, 3, 0)], np.int64), np.zeros(50, np.uint8)
    for bad in (np.array([(2, 4, 0)]), np.array([(0, 3, 0)]), np.array([(-2, -3, 0)]), np.array([(2**40, 2**40, 0)])):
        with pytest.raises(ValueError, match="Expected"):
            kernels.levels_encode(levels, None, bad.astype(np.int64), 2, out)
    with pytest.raises(ValueError, match="Expected"):
        kernels.levels_encode(levels, np.zeros(5, np.int8), parts, 2, out)
    with pytest.raises(ValueError, match="Expected"):
        kernels.fold(np.zeros(3), np.zeros(4, np.float32), 1.0)


def test_without_the_kernels_it_says_once_that_it_is_slow() -> None:
    import os
    import subprocess
    import sys

    script = "import fedpress.compression.entropy, fedpress.compression.native as n; print(n.kernels.__name__)"
    env = {**os.environ, "FEDPRESS_KERNELS": "off"}
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "fedpress.compression.twin"
    assert ran.stderr.count("slow") == 1
