"""Those first that are expected to finish in time: FedCS (Nishio and Yonetani, *Client selection for federated learning
with heterogeneous resources in mobile edge*, ICC 2019).

FedCS asks candidates for their resources, estimates download, training and upload, and takes as many as finish before
the deadline. Here the estimate is ``Candidate.seconds``, from what was measured: training time, link rates, payload
bytes, and rounds that closed without the client. Deviations:

- FedCS packs uploads one after the other into a shared radio band, quickest first. Devices here upload side by side on
  links of their own, so each is held against the deadline by itself, and those in time are drawn uniformly: taking the
  quickest would train on the same few for ever.
- FedCS takes as many as it can, here ``cohort.fraction`` says how many. Where too few are in time, the places left go
  to the slow, those expected soonest first.
- Whose time is not known is tried, as if it were in time.
- A measurement is believed for ``_BELIEVED`` rounds. Of the slow, those that have not been invited for longer have a
  tenth of all places between them, longest ago first: a better link is noticed, and nobody starves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fedpress.compression.stream import Stream
from fedpress.server.selection.candidate import Candidate, Select

#: Rounds without an invitation after which a slow client may be tried again, and one in so many places is for that.
_BELIEVED: Final = 20
_ONE_IN: Final = 10
#: The share of the deadline that a client may be expected to take: estimates are no promises.
_IN_TIME: Final = 0.9


def deadline_aware(seed: int, deadline_s: float) -> Select:
    """A selection that depends on the seed, the round and the candidates; the names come back sorted.

    ``deadline_s``: seconds a round may take.
    """

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:
        lots = Stream.of(seed, "cohort", round_, drawn_before).u64(len(candidates)).tolist()
        lot = {c.name: number for c, number in zip(candidates, lots, strict=True)}
        slow = {c.name: c for c in candidates if c.seconds > _IN_TIME * deadline_s}  # NaN is not
        forgotten = [c for c in slow.values() if round_ - c.last_round > _BELIEVED]
        forgotten.sort(key=lambda c: (c.last_round, lot[c.name]))
        retried = [c.name for c in forgotten[: 0 if drawn_before else _retries(count, round_)]]
        timely = sorted((c.name for c in candidates if c.name not in slow), key=lot.__getitem__)
        rest = sorted(slow.keys() - set(retried), key=lambda name: (slow[name].seconds, lot[name]))
        return sorted([*retried, *timely, *rest][:count])

    return select


def _retries(count: int, round_: int) -> int:
    """Places of this round that are for retrying: over the rounds, one in ``_ONE_IN``."""
    return round_ * count // _ONE_IN - (round_ - 1) * count // _ONE_IN
