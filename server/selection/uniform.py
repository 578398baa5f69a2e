"""Uniform sampling without replacement: every present client is equally likely (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedpress.compression.stream import Stream


def uniform(seed: int) -> Callable[[Sequence[str], int, int, int], list[str]]:
    """A selection that depends on the seed, the round and the sorted names alone; the names come back sorted."""

    def select(names: Sequence[str], count: int, round_: int, drawn_before: int) -> list[str]:
        keys = Stream.of(seed, "cohort", round_, drawn_before).u64(len(names))
        return [names[i] for i in sorted(np.argsort(keys, kind="stable")[:count])]

    return select
