"""Packed bits and coded gaps against twins written one element at a time from the formats' descriptions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.compression import bits, gaps
from fedpress.errors import DecodeError


def packed_slowly(values: list[int], width: int) -> bytes:
    stream = sum(value << (i * width) for i, value in enumerate(values))
    return stream.to_bytes((len(values) * width + 7) // 8, "little")


def gaps_slowly(indices: list[int], limit: int) -> bytes:
    r = gaps.rice_parameter(len(indices), limit)
    low, unary, length, before = [], 0, 0, -1
    for index in indices:
        gap = index - before - 1
        low.append(gap % 2**r)
        length += gap >> r
        unary |= 1 << length
        length += 1
        before = index
    return packed_slowly(low, r) + unary.to_bytes((length + 7) // 8, "little")


@settings(max_examples=150, deadline=None)
@given(width=st.integers(0, 32), data=st.data())
def test_packing(width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    packed = bits.pack(np.array(values, np.uint8 if width <= 8 else np.int64), width)
    assert packed == packed_slowly(values, width)
    assert bits.unpack(packed, width, len(values)).tolist() == values


@pytest.mark.parametrize("width", [1, 3, 5, 11])
def test_unused_bits_are_zero(width: int) -> None:
    packed = bytearray(bits.pack(np.zeros(3, np.uint32), width))
    packed[-1] |= 0x80
    with pytest.raises(DecodeError, match="zeros in the last"):
        bits.unpack(bytes(packed), width, 3)
    with pytest.raises(DecodeError, match="bytes for 3 values"):
        bits.unpack(bytes(packed) + b"\0", width, 3)


@settings(max_examples=150, deadline=None)
@given(limit=st.integers(1, 5000), data=st.data())
def test_gaps(limit: int, data: st.DataObject) -> None:
    indices = sorted(data.draw(st.sets(st.integers(0, limit - 1), max_size=min(limit, 60))))
    coded = gaps.encode(np.array(indices, np.int64), limit)
    assert coded == (gaps_slowly(indices, limit) if indices else b"")
    assert len(coded) <= gaps.max_bytes(len(indices), limit)
    assert gaps.decode(coded, len(indices), limit).tolist() == indices


def test_gaps_of_the_far_end_meet_the_bound() -> None:
    for limit, count in ((100_000, 3), (5000, 50), (64, 64), (7, 5)):
        last = np.arange(limit - count, limit)
        coded = gaps.encode(last, limit)
        assert len(coded) == gaps.max_bytes(count, limit)
        assert gaps.decode(coded, count, limit).tolist() == last.tolist()


def test_gaps_cost_what_theory_says() -> None:
    """8.08 bits per index is the entropy at 1 %."""
    chosen = np.flatnonzero(np.random.default_rng(0).random(500_000) < 0.01)
    assert 8 * len(gaps.encode(chosen, 500_000)) / chosen.size < 8.2


@pytest.mark.parametrize("density", [0.0005, 0.003, 0.01, 0.05, 0.2, 0.5, 0.9])
def test_no_other_parameter_is_better(density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = np.flatnonzero(np.random.default_rng(1).random(200_000) < density)
    sizes = {}
    best = gaps.rice_parameter(chosen.size, 200_000)
    for r in range(max(0, best - 2), best + 3):
        monkeypatch.setattr(gaps, "rice_parameter", lambda count, limit, r=r: r)
        sizes[r] = len(gaps.encode(chosen, 200_000))
    assert sizes[best] <= 1.005 * min(sizes.values())


def test_gaps_that_lead_outside_are_refused() -> None:
    coded = gaps.encode(np.array([3, 9]), 10)
    with pytest.raises(DecodeError, match="below"):
        gaps.decode(gaps.encode(np.array([3, 10]), 11), 2, 10)
    with pytest.raises(DecodeError):
        gaps.decode(coded + b"\0", 2, 10)
    with pytest.raises(DecodeError):
        gaps.decode(b"", 2, 10)
