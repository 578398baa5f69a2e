"""Running statistics: what is left out is small beside the change, and none becomes negative."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpress.compression.download import Publisher
from fedpress.compression.registry import parse
from fedpress.compression.statistics import change
from fedpress.params import Spec, add

SIZES = st.floats(0, 2.0**100, width=32, allow_subnormal=False)
CODEC = parse("dither:2")


def spec_of(values: list[float]) -> Spec:
    return Spec.of({"var": np.array(values, np.float32)}, {"var": "statistic"})


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=20))
def test_a_change_loses_a_256th_of_itself_or_of_what_is_left_and_no_variance_is_negative(
    pairs: list[tuple[float, float]],
) -> None:
    base, new = ({"var": np.array(values, np.float32)} for values in zip(*pairs, strict=True))
    made = change(new, base, spec_of([0.0] * len(pairs)), CODEC)
    arrived = add(base, made)["var"].astype(np.float64)
    b, y = base["var"].astype(np.float64), new["var"].astype(np.float64)
    assert (arrived >= 0).all()
    assert (np.abs(arrived - y) <= np.minimum(np.abs(y - b), y) / 256 + np.maximum(b, y) * 2.0**-23).all()


@given(st.sampled_from([290.0, 2020.0, 101325.0, 1.7e9]), st.booleans())
def test_a_mean_that_is_large_beside_its_deviation_arrives(mean: float, ladder: bool) -> None:
    """Columns of temperatures, years, pressures, times."""
    kinds = {"mean": "statistic"}
    spec = Spec.of({"w": np.zeros(9, np.float32), "mean": np.zeros(3, np.float32)}, kinds)  # type: ignore[arg-type]
    publisher = Publisher(parse("nmse:0.2,ladder=true") if ladder else CODEC, "delta", spec)
    exact = {"w": np.zeros(9, np.float32), "mean": np.zeros(3, np.float32)}
    step = publisher.publish(exact, None, "", 0)
    for version in range(1, 4):
        exact["mean"] = np.full(3, mean, np.float32)
        step = publisher.publish(exact, step.seen, step.link.hash, version)
    assert np.abs(step.seen["mean"] - exact["mean"]).max() <= mean * 2.0**-23
