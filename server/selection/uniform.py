"""Uniform sampling without replacement: every present client is equally likely (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.server.selection.candidate import Candidate, Select


def uniform(seed: int) -> Select:
    """A selection that depends on the seed, the round and the names alone; the names come back sorted."""

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:
        keys = Stream.of(seed, "cohort", round_, drawn_before).u64(len(candidates))
        return [candidates[i].name for i in sorted(np.argsort(keys, kind="stable")[:count])]

    return select
