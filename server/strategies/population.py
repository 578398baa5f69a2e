"""A mean over all clients that follows from their updates, while clients still join: SCAFFOLD's ``c``, FedDyn's ``h``.

Each client keeps a tensor, zeros at first; the server keeps the mean over all that are enrolled, and adds to it what a
round changed. The papers have N clients from the first round on. Here devices join at any time, with zeros: the sum
over all stays as it is, so that the mean shrinks. If it did not, the difference would stay for good, and the model
would settle beside the optimum by as much. What a client kept stays in the mean if it never comes back, or comes back
with an empty vault: the papers have no clients that leave either.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from fedpress.params import Tensors
from fedpress.server.strategies.strategy import Aggregate

#: In a strategy's state, beside tensors of the model's names.
_CLIENTS: Final = "population:clients"


class Population(NamedTuple):
    """``mean <- stays * mean + seen * change``, ``change`` being the mean over a round's clients; ``state``: what the
    next round needs."""

    stays: np.float32
    seen: np.float32
    state: Tensors

    @classmethod
    def of(cls, round_: Aggregate, state: Tensors) -> Population:
        """In a round, after the one that left ``state``."""
        now = max(round_.counted, round_.population)
        before = float(state[_CLIENTS]) if _CLIENTS in state else now
        return cls(np.float32(before / now), np.float32(round_.counted / now), {_CLIENTS: np.array(now, np.float64)})
