"""How a run's updates are distributed: light tails or long ones, by what its first rounds took.

At the same loss, numbers of one size take more bits than Gaussian ones, and these more than long-tailed ones, of which
a few hold most of the energy. In the first rounds updates are coded to a known loss (``choice.PROBING``), so that their
bytes tell. Read from the store, once: the same after a restart.
"""

from __future__ import annotations

import math
from typing import Final

from fedpress.protos import fleet_pb2 as pb
from fedpress.server.choice import PROBING
from fedpress.server.leases import Fate
from fedpress.server.store import Store

#: Tails are light above this share of the bits that Gaussian numbers take.
_LIGHT: Final = 0.68
#: What a dead-zone quantiser of Gaussian numbers takes beyond their rate-distortion function, in bits.
_OVERHEAD: Final = 0.2


class Tails:
    """Of one run's updates of ``parameters`` numbers."""

    def __init__(self, store: Store, parameters: int) -> None:
        self._store, self._parameters = store, parameters
        self._light: bool | None = None

    def light(self, round_: int) -> bool | None:
        """Whether they are light, for the codec of a round; None where nothing has shown it."""
        if self._light is None and round_ > PROBING:
            self._light = self._seen()
        return self._light

    def _seen(self) -> bool | None:
        bits, given, lost = 0.0, 0.0, 0.0
        count = 0
        for round_ in range(1, PROBING + 1):
            for lease, _, traffic, raw in self._store.reports(round_, evaluate=False):
                report = pb.Report.FromString(raw)
                if lease.fate is Fate.COUNTED and report.given > 0:
                    bits += 8 * traffic.bytes_up / self._parameters
                    given, lost, count = given + report.given, lost + report.lost, count + 1
        if not count or not 0 < lost < given:
            return None
        gaussian = 0.5 * math.log2(given / lost) + _OVERHEAD
        return bits / count >= _LIGHT * gaussian
