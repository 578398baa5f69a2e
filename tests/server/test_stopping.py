"""When a run should end early, by numbers written down by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.sections import Stop
from fedpress.server.stopping import Standing


def ends(values: list[float], **keys: Any) -> tuple[int | None, int]:
    """The round after which the run ends, None if none; and the best round by then."""
    now = Standing(Stop(**keys))
    for round_, value in enumerate(values):
        now = now.after(round_, value)
        if now.reason:
            return round_, now.best_round
    return None, now.best_round


@pytest.mark.parametrize(
    ("values", "keys", "expected"),
    [
        ([0.1, 0.5, 0.5, 0.4, 0.3], {}, (None, 1)),
        ([0.1, 0.5, 0.5, 0.4, 0.3], {"patience": 3}, (4, 1)),
        ([0.1, 0.5, 0.5, 0.6, 0.3], {"patience": 3}, (None, 3)),
        ([0.1, 0.5, 0.55, 0.58, 0.59], {"patience": 2, "min_delta": 0.1}, (3, 3)),
        ([0.1, 0.5, 0.55, 0.61, 0.62], {"patience": 2, "min_delta": 0.1}, (None, 4)),
        ([0.1, 0.5, 0.9, 0.95], {"target": 0.9}, (2, 2)),
        ([2.0, 1.0, 1.5, 1.2], {"metric": "loss", "patience": 2}, (3, 1)),
        ([2.0, 1.0, 0.4, 0.3], {"metric": "loss", "target": 0.5}, (2, 2)),
        ([2.0, 1.0, 0.4, 0.3], {"metric": "loss", "patience": 1, "min_delta": 0.2}, (3, 3)),
        ([math.nan, math.inf, math.nan], {"patience": 1}, (None, -1)),
        ([0.5, math.nan, math.nan], {"patience": 2}, (2, 0)),
        ([], {"patience": 1, "target": 0.5}, (None, -1)),
    ],
)
def test_rounds_to_the_end(values: list[float], keys: dict[str, Any], expected: tuple[int | None, int]) -> None:
    assert ends(values, **keys) == expected


def test_patience_counts_rounds_not_measurements() -> None:
    now = Standing(Stop(patience=10)).after(0, 0.5)
    assert not now.after(5, 0.4).reason
    assert now.after(5, 0.4).after(10, 0.4).reason == "accuracy has not improved on 0.5 for 10 rounds"
    assert Standing(Stop(target=0.4)).after(7, 0.5).reason == "accuracy is 0.5 after round 7: the target was 0.4"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5), st.floats(0, 0.3))
def test_the_best_is_the_first_of_the_best_whatever_else_the_plan_says(
    values: list[float], patience: int, delta: float
) -> None:
    higher, lower = Standing(Stop(patience=patience, min_delta=delta)), Standing(Stop(metric="loss"))
    for round_, value in enumerate(values):
        higher, lower = higher.after(round_, value), lower.after(round_, value)
    assert (higher.best_round, higher.best) == (values.index(max(values)), max(values))
    assert (lower.best_round, lower.best) == (values.index(min(values)), min(values))
    if not patience:
        assert not higher.reason


def test_what_nobody_measures_stops_nothing() -> None:
    load(None, ["evaluate.server_every=0", "evaluate.clients_every=0"])
    for key in ("stop.patience=3", "stop.target=0.5"):
        with pytest.raises(PlanError, match="nobody would measure"):
            load(None, ["evaluate.server_every=0", "evaluate.clients_every=0", key])
