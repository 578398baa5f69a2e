"""DP-FTRL: the recursion is the matrix, a participation costs one Gaussian, and prefix sums gain."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fedpress.compression.codec import NOTHING, State
from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.params import Spec, TensorSpec, from_bytes, to_bytes
from fedpress.privacy.bounded import BoundedSum, clip
from fedpress.privacy.correlated import BITS, Banded
from fedpress.privacy.noise import Noise

UNIT = 1 << BITS
SPEC = Spec((TensorSpec("a", (40, 50)), TensorSpec("none", (0,)), TensorSpec("b", ())))


def factor(bands: int, rounds: int) -> NDArray[np.float64]:
    """C, rounds by rounds."""
    return sum(
        (np.diag(np.full(rounds - j, c / UNIT), -j) for j, c in enumerate(Banded(bands).coefficients()[:rounds])),
        np.zeros((rounds, rounds)),
    )


def run(bands: int, z: NDArray[np.int64]) -> NDArray[np.int64]:
    """The noise of all rounds, by one tensor's recursion; z is [rounds, size] in 2^-14 steps."""
    past: State = NOTHING
    out = []
    for row in z:
        noise, past = Banded(bands).step({"x": row}, past)
        out.append(noise["x"])
    return np.array(out)


def test_the_coefficients_are_those_of_the_square_root() -> None:
    """C times C is the matrix of prefix sums, as far as the bands reach."""
    assert Banded(6).coefficients() == tuple(UNIT * c // 256 for c in (256, 128, 96, 80, 70, 63))
    assert np.allclose(factor(64, 64) @ factor(64, 64), np.tril(np.ones((64, 64))), atol=0.01)


@pytest.mark.parametrize("bands", [1, 2, 5, 16])
def test_c_times_the_noise_is_z(bands: int) -> None:
    z = np.random.default_rng(bands).integers(-(1 << 50), 1 << 50, (40, 30))
    noise = run(bands, z)
    coefficients = Banded(bands).coefficients()
    for t in range(40):
        back = sum(c * noise[t - j] for j, c in enumerate(coefficients[: t + 1]))
        assert np.all(np.abs(back - z[t]) <= UNIT // 2)  # exactly, but for the rounding to a whole step
    assert np.allclose(noise, np.linalg.solve(factor(bands, 40), z / UNIT), atol=2)


@pytest.mark.parametrize("bands", [1, 3, 16])
def test_what_is_released_is_a_function_of_the_noised_rows_alone(bands: int) -> None:
    """Other sums, and z so much less: C x + z is the same, and every release is, to the last bit."""
    rng = np.random.default_rng(7)
    sums, others = rng.integers(-(1 << 24), 1 << 24, (2, 30, 20))
    z = rng.integers(-(1 << 40), 1 << 40, (30, 20))
    coefficients = Banded(bands).coefficients()
    rows = [sum(c * (sums - others)[t - j] for j, c in enumerate(coefficients[: t + 1])) for t in range(30)]
    assert np.array_equal(sums + run(bands, z), others + run(bands, z + np.array(rows)))


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_each_participation_moves_c_x_by_at_most_the_norm(bands: int) -> None:
    """Brute force: every pattern of rounds at least ``bands`` apart, whatever the signs of the updates."""
    rounds = 7
    c = factor(bands, rounds)
    norm = Banded(bands).norm()
    for size in range(1, rounds + 1):
        for pattern in itertools.combinations(range(rounds), size):
            if any(b - a < bands for a, b in itertools.pairwise(pattern)):
                continue
            for signs in itertools.product((-1.0, 1.0), repeat=size):
                x = np.zeros(rounds)
                x[list(pattern)] = signs
                moved = float(np.linalg.norm(c @ x))
                assert moved <= math.sqrt(size) * norm + 1e-12
                if pattern[-1] <= rounds - bands:
                    assert moved == pytest.approx(math.sqrt(size) * norm)


def test_closer_participations_would_cost_more() -> None:
    x = np.zeros(7)
    x[[2, 3]] = 1
    assert np.linalg.norm(factor(3, 7) @ x) > 1.2 * math.sqrt(2) * Banded(3).norm()


@pytest.mark.parametrize(("bands", "last", "mean"), [(8, 0.21, 0.23), (16, 0.14, 0.18)])
def test_prefix_sums_have_less_noise_than_independent_noise_at_the_same_privacy(
    bands: int, last: float, mean: float
) -> None:
    """Variances in that of independent noise of the same multiplier, whose prefix sums have 1 ... 64."""
    sums = np.tril(np.ones((64, 64))) @ np.linalg.inv(factor(bands, 64))
    variance = Banded(bands).norm() ** 2 * np.sum(sums**2, axis=1)
    assert variance[-1] / 64 < last
    assert variance.mean() / 32.5 < mean


def test_the_recursion_is_stable() -> None:
    """Up to the most bands there may be: no zero of the polynomial is in the unit disk, so old noise dies away."""
    coefficients = Banded(256).coefficients()
    assert all(a > b > 0 for a, b in itertools.pairwise(coefficients))
    for bands in (2, 16, 256):
        assert np.min(np.abs(np.roots(coefficients[:bands][::-1]))) > 1


def test_the_past_is_bounded_plain_and_survives_a_file() -> None:
    rng = np.random.default_rng(1)
    banded, past = Banded(4), NOTHING
    for t in range(1, 8):
        z = {"a": rng.integers(-(1 << 40), 1 << 40, (3, 2)), "b": rng.integers(-5, 5, ())}
        before = {name: array.copy() for name, array in past.items()}
        noise, following = banded.step(z, past)
        again, _ = banded.step(z, from_bytes(to_bytes(past)))
        assert all(np.array_equal(noise[n], again[n]) and noise[n].dtype == np.int64 for n in z)
        assert all(np.array_equal(before[name], past[name]) for name in before)
        assert sorted(following) == sorted(f"{j}/{n}" for j in range(1, min(t, 3) + 1) for n in z)
        past = following


def test_a_run_of_releases_has_the_noise_it_says() -> None:
    """Of a participation: nu times bound times norm on C n. Of the prefix sum: what the matrix says."""
    banded, past = Banded(4), NOTHING
    gathered = BoundedSum(SPEC)
    update = {"a": np.full((40, 50), 1e-2, np.float32), "none": np.zeros(0, np.float32), "b": np.float32(0).reshape(())}
    bound, nu, divisor, rounds = 2.0, 0.75, 4.0, 12
    noises = []
    for t in range(rounds):
        gathered.clear(bound)
        for _ in range(5):
            gathered.fold(clip(update, bound))
        released, past = gathered.release_correlated(nu, divisor, Noise.seeded(Stream(t)), banded, past)
        SPEC.check(released)
        noises.append((released["a"].astype(np.float64) * divisor - 5e-2).ravel())
    z = factor(4, rounds) @ np.array(noises)
    assert z.std() == pytest.approx(nu * bound * banded.norm(), rel=0.02)
    row = np.sum(np.linalg.inv(factor(4, rounds)), axis=0)
    expected = nu * bound * banded.norm() * np.linalg.norm(row)
    assert np.sum(noises, axis=0).std() == pytest.approx(expected, rel=0.06)
    assert np.abs(z.mean()) < 0.05


def test_one_band_is_independent_noise() -> None:
    gathered = BoundedSum(SPEC)
    gathered.clear(1.0)
    released, past = gathered.release_correlated(2.0, 1.0, Noise.seeded(Stream(1)), Banded(1), NOTHING)
    assert not past
    assert Banded(1).norm() == 1.0
    assert released["a"].std() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("bands", [0, -1, 257])
def test_a_number_of_bands_that_cannot_be_is_refused(bands: int) -> None:
    with pytest.raises(PrivacyError, match="bands"):
        Banded(bands)
