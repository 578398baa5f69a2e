"""Sampling by amount of data, without replacement: who has more examples is drawn more often.

Each candidate gets the key ``-log(u) / examples`` with ``u`` uniform, and the smallest keys win (Efraimidis and
Spirakis, *Weighted random sampling with a reservoir*, 2006, in the logarithmic form of their ``u ** (1 / w)``): as if
clients were drawn one by one, each time in proportion to the examples of those that are left.

What it does to FedAvg: a client's pull on the model is how often it is drawn times the weight of its update. With
``strategy.weighting = "examples"`` both grow with its data, so that its data counts twice; ``"uniform"`` is what goes
with this rule (sampling in proportion to data and a plain mean: scheme I of Li et al., *On the convergence of FedAvg on
non-IID data*, ICLR 2020). Theirs draws with replacement and is unbiased; without, the largest clients are drawn a
little less than in proportion, the more so the larger the cohort, and with everybody in it not at all differently.

A server learns a client's examples from its first update. Until then it counts as the mean of those that are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.server.selection.candidate import Candidate, Select


def weighted(seed: int) -> Select:
    """A selection that depends on the seed, the round, the names and their examples; the names come back sorted."""

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:
        known = [c.examples for c in candidates if c.examples]
        usual = sum(known) / len(known) if known else 1.0
        weights = np.array([c.examples or usual for c in candidates], np.float64)
        drawn = Stream.of(seed, "cohort", round_, drawn_before).u64(len(candidates))
        u = (np.right_shift(drawn, np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), exactly
        keys = -np.log(u) / weights
        return [candidates[i].name for i in sorted(np.argsort(keys, kind="stable")[:count])]

    return select
