from __future__ import annotations

import math

import numpy as np
import pytest

from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.params import Spec, TensorSpec
from fedpress.privacy.adaptive import AdaptiveClip
from fedpress.privacy.bounded import LARGEST_BOUND, LEAST_BOUND, BoundedSum, clip
from fedpress.privacy.noise import Noise


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-3, 1e2])
def test_the_bound_finds_the_quantile(quantile: float, start: float) -> None:
    """Of norms that are log-normal, from a bound a thousand times too small or too large."""
    rng = np.random.default_rng(1)
    noise = Noise.seeded(Stream(1))
    adaptive = AdaptiveClip.of(quantile, 100)
    bound, tail = start, []
    gathered = BoundedSum(Spec((TensorSpec("x", (1,)),)))
    for _ in range(300):
        gathered.clear(bound)
        for norm in np.exp(rng.standard_normal(100)):
            gathered.fold(clip({"x": np.array([norm], np.float32)}, bound))
        bound = adaptive.step(bound, adaptive.share(gathered.inside, gathered.count, noise))
        tail.append(math.log(bound))
    reached = np.mean(tail[200:])
    inside = 0.5 * (1 + math.erf(reached / math.sqrt(2)))
    assert inside == pytest.approx(quantile, abs=0.04)
    assert np.std(tail[200:]) < 0.3


def test_sum_and_bits_together_are_the_multiplier_that_was_asked_for() -> None:
    adaptive = AdaptiveClip.of(0.5, 100)
    left = adaptive.remaining(1.0)
    assert adaptive.spread == 5.0
    # one client moves the sum by a bound, under noise of `left` bounds, and the bits by 1/2, under noise of `spread`
    assert math.hypot(1 / left, 0.5 / adaptive.spread) == pytest.approx(1 / 1.0)
    assert 1.0 < left < 1.01


@pytest.mark.parametrize("multiplier", [10.0, 11.0, 0.0, -1.0, math.nan, math.inf])
def test_what_the_bits_alone_would_reveal_is_refused(multiplier: float) -> None:
    with pytest.raises(PrivacyError, match="cohort of more than"):
        AdaptiveClip.of(0.5, 100).remaining(multiplier)
    assert AdaptiveClip.of(0.5, 100).remaining(9.9) > 50


def test_the_share_has_the_noise_it_says_over_the_expected_cohort() -> None:
    adaptive = AdaptiveClip.of(0.5, 40)
    noise = Noise.seeded(Stream(2))
    for inside, count in ((30, 50), (0, 0), (7, 10)):
        shares = np.array([adaptive.share(inside, count, noise) for _ in range(4000)])
        assert shares.mean() == pytest.approx(0.5 + (inside - count / 2) / 40, abs=0.004)
        assert shares.std() == pytest.approx(adaptive.spread / 40, rel=0.05)


def test_one_client_moves_the_share_by_half_a_client() -> None:
    """Added or removed, in or out: with the same noise, what is left is its sensitivity."""
    adaptive = AdaptiveClip.of(0.5, 40)

    def share(inside: int, count: int) -> float:
        return adaptive.share(inside, count, Noise.seeded(Stream(3)))

    for inside, count in ((0, 0), (3, 9), (40, 40)):
        for in_ in (0, 1):
            assert abs(share(inside + in_, count + 1) - share(inside, count)) == pytest.approx(0.5 / 40)


def test_the_bound_moves_by_the_rule_and_stays_a_bound() -> None:
    adaptive = AdaptiveClip(quantile=0.3, cohort=10, lr=0.5)
    assert adaptive.step(2.0, 0.3) == 2.0
    assert adaptive.step(2.0, 1.0) == pytest.approx(2.0 * math.exp(-0.35))
    assert adaptive.step(2.0, -0.1) == pytest.approx(2.0 * math.exp(0.2))
    assert adaptive.step(LEAST_BOUND, 1.0) == LEAST_BOUND
    assert adaptive.step(LARGEST_BOUND, 0.0) == LARGEST_BOUND


@pytest.mark.parametrize("given", [{"quantile": 0.0}, {"quantile": 1.0}, {"cohort": 0.0}, {"lr": 0.0}, {"lr": 2.0}])
def test_numbers_that_cannot_be_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(PrivacyError):
        AdaptiveClip(**given)
