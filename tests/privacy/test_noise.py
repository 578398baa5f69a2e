from __future__ import annotations

import numpy as np
import pytest

from fedpress.compression.stream import Stream
from fedpress.privacy.noise import Noise


def test_gaussian_noise_has_the_distribution_it_says() -> None:
    drawn = Noise.seeded(Stream(1)).gaussian(400_001, 3.0)
    assert drawn.shape == (400_001,)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(3.0, rel=0.005)
    assert np.mean(drawn**4) / drawn.var() ** 2 == pytest.approx(3.0, rel=0.03)
    for sigmas, inside in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert np.mean(np.abs(drawn) < 3.0 * sigmas) == pytest.approx(inside, abs=0.003)
    assert abs(np.corrcoef(drawn[:200_000], drawn[200_000:400_000])[0, 1]) < 0.01


def test_uniform_numbers_fill_the_unit_interval() -> None:
    drawn = Noise.seeded(Stream(2)).uniform(100_000)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    assert np.histogram(drawn, 10, (0, 1))[0] == pytest.approx(10_000, rel=0.05)


def test_secret_noise_does_not_repeat_and_seeded_noise_does() -> None:
    assert not np.array_equal(Noise.secret().gaussian(64, 1.0), Noise.secret().gaussian(64, 1.0))
    assert np.array_equal(Noise.seeded(Stream(1)).gaussian(64, 1.0), Noise.seeded(Stream(1)).gaussian(64, 1.0))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_any_count_will_do(n: int) -> None:
    assert Noise.secret().gaussian(n, 1.0).shape == (n,)
    assert np.isfinite(Noise.secret().gaussian(n, 1.0)).all()


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 2**40 + 1, 2**63 - 1, 2**63])
def test_integers_below_a_bound_are_uniform(bound: int) -> None:
    drawn = Noise.seeded(Stream(3)).below(bound, 50_000)
    assert drawn.min() >= 0
    assert drawn.max() < bound
    cells = min(bound, 10)
    seen = np.bincount(drawn // -(-bound // cells), minlength=cells)
    assert seen == pytest.approx(50_000 / cells, rel=0.06)


def test_a_word_past_the_last_multiple_is_drawn_again() -> None:
    words = iter([2**64 - 1, 5, 7])
    noise = Noise(lambda n: np.array([next(words) for _ in range(n)], np.uint64))
    assert noise.below(10, 2).tolist() == [7, 5]
