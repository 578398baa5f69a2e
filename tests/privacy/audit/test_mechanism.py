"""Canaries accuse mechanisms that are broken on purpose, each in its own way, and not the one that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fedpress.compression.stream import Stream
from fedpress.errors import PrivacyError
from fedpress.params import Spec, Tensors, flatten
from fedpress.privacy.audit.mechanism import Mechanism, audit
from fedpress.privacy.bounded import BoundedSum, clip
from fedpress.privacy.noise import Noise

BOUND, NOISE, DELTA = 0.5, 1.0, 1e-5


def clipped(update: Tensors) -> dict[str, np.ndarray]:
    norm = float(np.linalg.norm(flatten(update)))
    return {n: a * min(1.0, BOUND / norm) for n, a in update.items()}


def by_tensor(update: Tensors) -> dict[str, np.ndarray]:
    return {n: a * min(1.0, BOUND / float(np.linalg.norm(a))) for n, a in update.items()}


def gaussian(
    clip: Callable[[Tensors], Tensors] = clipped,
    noise: float = NOISE,
    divisor: Callable[[int], float] = lambda n: 4.0,
    cancel: bool = False,
    fixed: bool = False,
) -> Mechanism:
    rng = np.random.default_rng(7)

    def release(updates: Sequence[Tensors]) -> Tensors:
        draw = np.random.default_rng(1) if fixed else rng
        total = {n: sum(clip(u)[n] for u in updates) for n in updates[0]}
        drawn = {n: draw.normal(0, noise * BOUND, a.shape) for n, a in updates[0].items()}
        if cancel:  # each client's noise, taken off again
            total = {n: a + drawn[n] for n, a in total.items()}
            drawn = {n: -a for n, a in drawn.items()}
        return {n: (a + drawn[n]) / divisor(len(updates)) for n, a in total.items()}

    return release


def real(bound: float = BOUND, multiplier: float = NOISE) -> Mechanism:
    """The server's own clip, sum and noise; under other parameters than they say, a broken one."""
    noise = Noise.seeded(Stream(3))

    def release(updates: Sequence[Tensors]) -> Tensors:
        total = BoundedSum(Spec.of(updates[0]))
        total.clear(bound)
        for update in updates:
            total.fold(clip(update, bound))
        return total.release(multiplier, 4.0, noise)

    return release


@pytest.mark.parametrize("right", [gaussian(), real()], ids=["by definition", "the server's"])
def test_the_right_mechanism_is_not_accused_and_its_bound_is_close(right: Mechanism) -> None:
    verdict = audit(right, BOUND, NOISE, DELTA)
    assert not verdict.broken
    assert 0.6 * verdict.claimed < verdict.proven <= verdict.claimed


@pytest.mark.parametrize(
    "broken",
    [
        gaussian(clip=lambda u: u),
        gaussian(clip=by_tensor),
        gaussian(noise=NOISE / 2),
        gaussian(divisor=lambda n: float(n)),
        gaussian(cancel=True),
        gaussian(fixed=True),
        real(multiplier=NOISE / 2),
        real(bound=1e4 * BOUND, multiplier=1e-4 * NOISE),
    ],
    ids=[
        *(
            "no clip",
            "each tensor clipped apart",
            "half the noise",
            "divided by how many came",
            "cancelled",
            "repeated",
        ),
        *("the server's with half the noise", "the server's without its clip"),
    ],
)
def test_what_is_broken_is_found(broken: Mechanism) -> None:
    verdict = audit(broken, BOUND, NOISE, DELTA)
    assert verdict.broken
    assert verdict.proven > verdict.claimed


def test_a_claim_of_no_noise_is_refused() -> None:
    with pytest.raises(PrivacyError, match="noise_multiplier > 0"):
        audit(gaussian(), BOUND, 0.0, DELTA)
