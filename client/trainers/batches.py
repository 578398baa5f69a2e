"""Which examples each step of local training sees: the same for every trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stream import Stream
from fedpress.errors import PlanError
from fedpress.protos import fleet_pb2 as pb

_MOST_EPOCHS: Final = 10_000


def batches(count: int, training: pb.Training, rng: Stream) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch: shuffled epochs, at most ``max_steps`` in all. A last batch of one example joins the one
    before it, because batch normalisation has no variance of one. None of no examples."""
    size, left = training.batch_size, training.max_steps or -1
    for _ in range(training.epochs if count else 0):
        order = np.argsort(rng.u64(count), kind="stable")
        starts = list(range(0, count, size))
        if size > 1 and len(starts) > 1 and count - starts[-1] == 1:
            starts.pop()
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            if left == 0:
                return
            left -= 1
            yield order[start:end]


def check(training: pb.Training) -> None:
    """Raise PlanError for what no trainer can do."""
    if training.batch_size < 1 or training.epochs > _MOST_EPOCHS or not 0 <= training.lr < float("inf"):
        raise PlanError(
            f"Expected batch_size >= 1, a learning rate >= 0 and at most {_MOST_EPOCHS} epochs from the server, "
            f"got {training}."
        )
