"""The discrete Gaussian has the law it says, also where the digits have to decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.privacy import discrete
from fedpress.privacy.discrete import LARGEST, discrete_gaussian
from fedpress.privacy.noise import Noise


def law(sigma: int, widest: int) -> NDArray[np.float64]:
    """The chances of -widest ... widest."""
    weights = np.array([math.exp(-(x * x) / (2 * sigma * sigma)) for x in range(-widest, widest + 1)])
    return weights / weights.sum()


def distance(drawn: NDArray[np.int64], sigma: int) -> float:
    """Pearson's chi-square against the law, in its standard deviations above its mean."""
    widest = next(x for x in range(99) if law(sigma, 99)[99 + x] * drawn.size < 10)  # the tails are one cell each
    chances = law(sigma, 99)
    cells = chances[100 - widest : 99 + widest]
    cells = np.array([chances[: 100 - widest].sum(), *cells, chances[99 + widest :].sum()])
    seen = np.bincount(np.clip(drawn, -widest, widest) + widest, minlength=2 * widest + 1)
    expected = cells * drawn.size
    freedom = cells.size - 1
    return float((np.sum((seen - expected) ** 2 / expected) - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("sigma", [1, 2, 7])
def test_small_numbers_come_as_often_as_they_should(sigma: int) -> None:
    drawn = discrete_gaussian(Noise.seeded(Stream(sigma)), 1_000_000, sigma)
    assert abs(distance(drawn, sigma)) < 4
    assert distance(np.where(drawn == sigma, -drawn, drawn), sigma) > 40  # the test would see it
    assert distance(discrete_gaussian(Noise.seeded(Stream(1)), 1_000_000, sigma + 1), sigma) > 40


@pytest.mark.parametrize("sigma", [1, 2, 7])
def test_the_digits_decide_by_the_same_law(sigma: int) -> None:
    """With a margin of 1 no coin is left to floating point."""
    noise = Noise.seeded(Stream(sigma))
    assert abs(distance(discrete._draw(noise, 20_000, sigma, 1.0), sigma)) < 4


def test_the_digits_and_floating_point_decide_alike() -> None:
    for sigma in (1, 3, 1 << 24, LARGEST):
        exact = discrete._draw(Noise.seeded(Stream(9)), 5_000, sigma, 1.0)
        assert np.array_equal(exact, discrete._draw(Noise.seeded(Stream(9)), 5_000, sigma, 2.0**-44))


def normal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


@pytest.mark.parametrize("sigma", [1 << 24, (1 << 40) + 12_345, LARGEST])
def test_large_ones_are_gaussian(sigma: int) -> None:
    """Moments, and Kolmogorov and Smirnov's distance, to four standard deviations."""
    n = 200_000
    drawn = discrete_gaussian(Noise.seeded(Stream(3)), n, sigma) / sigma
    assert abs(drawn.mean()) < 4 / math.sqrt(n)
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(np.mean(drawn**3)) < 4 * math.sqrt(15 / n)
    assert abs(np.mean(drawn**4) - 3) < 4 * math.sqrt(96 / n)
    ranks = np.arange(n + 1) / n
    cumulative = normal(np.sort(drawn))
    assert max(np.max(ranks[1:] - cumulative), np.max(cumulative - ranks[:-1])) < 1.95 / math.sqrt(n)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 4 / math.sqrt(n)


def test_low_bits_are_uniform() -> None:
    """Nothing of floating point is in them."""
    drawn = discrete_gaussian(Noise.seeded(Stream(4)), 200_000, 1 << 40)
    for bits in (1, 4, 8):
        cells = 1 << bits
        seen = np.bincount(drawn & (cells - 1), minlength=cells)
        square = np.sum((seen - drawn.size / cells) ** 2) / (drawn.size / cells)
        assert abs(square - (cells - 1)) < 4 * math.sqrt(2 * (cells - 1))


def test_geometric_numbers_follow_powers_of_e() -> None:
    drawn = discrete._geometric(Noise.seeded(Stream(5)), 500_000)
    for k in range(8):
        chance = math.exp(-k)
        assert abs(np.mean(drawn >= k) - chance) <= 4 * math.sqrt(chance * (1 - chance) / drawn.size)


def words(*given: int) -> Noise:
    """A source of these words and no more."""
    left = iter(given)
    return Noise(lambda n: np.array([next(left) for _ in range(n)], np.uint64))


@pytest.mark.parametrize("k", [1, 2, 10, 44])
def test_a_word_at_the_very_power_is_settled_by_the_next(k: int) -> None:
    table = int(discrete._POWERS[45 - k])
    assert table == pytest.approx(math.exp(-k) * 2**64, rel=1e-15, abs=1)
    assert discrete._geometric(words(table, 0), 1)[0] == k
    assert discrete._geometric(words(table, 2**64 - 1), 1)[0] == k - 1


def test_a_word_of_zero_asks_for_more() -> None:
    """Below exp(-44) 64 bits do not say how far: chance 2^-64, and still the right law."""
    assert discrete._geometric(words(0, 2**63), 1)[0] == math.floor(65 * math.log(2))
    assert discrete._geometric(words(0, 0, 2**63), 1)[0] == math.floor(129 * math.log(2))


@pytest.mark.parametrize("n", [0, 1, 2, 1000, 100_000])
def test_any_count_will_do(n: int) -> None:
    drawn = discrete_gaussian(Noise.secret(), n, 1 << 24)
    assert drawn.shape == (n,)
    assert drawn.dtype == np.int64


@pytest.mark.parametrize("sigma", [0, -1, LARGEST + 1])
def test_a_sigma_that_cannot_be_is_refused(sigma: int) -> None:
    with pytest.raises(PrivacyError, match="sigma"):
        discrete_gaussian(Noise.secret(), 1, sigma)
