"""The spread over clients, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.server.spread import Spread, spread


def test_by_hand() -> None:
    assert spread([]) is None
    assert spread([0.25]) == Spread(0.25, 0.0, 0.25, 1)
    assert spread([1.0, 0.0]) == Spread(0.5, 0.5, 0.0, 2)
    twenty = [0.0, 0.5, *[1.0] * 18]
    found = spread(twenty[::-1])
    assert found is not None
    assert found.worst_decile == 0.25  # the mean of 0 and 0.5: two of twenty
    assert found.mean == pytest.approx(0.925)
    fewer = spread(twenty[:19])
    assert fewer is not None
    assert fewer.worst_decile == 0.0  # of nineteen it is one


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.randoms())
def test_it_lies_between_the_worst_and_the_mean_whatever_the_order(values: list[float], random: object) -> None:
    found = spread(values)
    assert found is not None
    assert min(values) <= found.worst_decile <= found.mean + 1e-12
    random.shuffle(values)  # type: ignore[attr-defined]
    assert spread(values) == found
