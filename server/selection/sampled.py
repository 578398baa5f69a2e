"""Draws that amplify central privacy: nobody outside the server can know, or foresee, who takes part.

Amplification by sampling holds only while the draw is secret, so these come from the operating system's cryptographic
source, not from the run's seed, which every device is told. A resumed round keeps its draw: its leases are in the
store.

Poisson: each client is drawn by itself with the same chance, so that a cohort's size varies and may be 0. Fixed: a
cohort of a given size, without replacement, all such cohorts alike. Which statement each gives is in
``privacy.accountants``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpress.privacy.noise import Noise
from fedpress.server.selection.candidate import Candidate, Select


def poisson(rate: float, least: int, noise: Noise) -> Select:
    """Each candidate with chance ``rate``, whatever the count asked for; nobody where fewer than ``least`` are drawn:
    the round then releases noise alone."""

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:  # noqa: ARG001
        drawn = noise.uniform(len(candidates)) < rate
        names = [c.name for c, here in zip(candidates, drawn, strict=True) if here]
        return names if len(names) >= least else []

    return select


def fixed(noise: Noise) -> Select:
    """``count`` of the candidates; the names come back sorted."""

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:  # noqa: ARG001
        keys = noise.uniform(len(candidates))
        return [candidates[i].name for i in sorted(np.argsort(keys, kind="stable")[:count])]

    return select
