"""Taking turns: those that were invited least often come first, ties drawn by lot. Folklore; the fair queue's rule.

Among clients that are always there the numbers of invitations never differ by more than one. They are counted from the
store, so that turns go on after a restart where they stood. A device that joins late, or was away, is invited every
round until it has caught up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.server.selection.candidate import Candidate, Select


def round_robin(seed: int) -> Select:
    """A selection that depends on the seed, the round, the names and participations; the names come back sorted."""

    def select(candidates: Sequence[Candidate], count: int, round_: int, drawn_before: int) -> list[str]:
        lots = Stream.of(seed, "cohort", round_, drawn_before).u64(len(candidates))
        turns = np.lexsort((lots, np.array([c.participations for c in candidates])))
        return [candidates[i].name for i in sorted(turns[:count])]

    return select
