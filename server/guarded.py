"""The sum of a round's updates under central privacy, in the place of ``Gathering``: clipped as folded, noised once.

It is of weights alone, the only tensors that are released. Statistics would have to be noised too, and a noised
variance is none; what is frozen needs no noise.

Clients' metrics, where the plan lets them leave, are a bounded sum of their own: of (1, accuracy, loss / 10) each, cut
to [0, 1], so that they too can only leave with noise. What the next round needs (the bound that adapts, noise that is
correlated over rounds) is a value, kept with the version that this round makes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from fedpress.compression.codec import NOTHING, part, prefixed
from fedpress.errors import SpecError
from fedpress.params import Array, Spec, Tensors
from fedpress.privacy.bounded import BoundedSum, clip
from fedpress.privacy.central import Central
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.strategies import Aggregate, Share

_ONE: Final = np.ones(1, np.float32)
#: What is measured, and what it is divided by to be in [0, 1].
_METRICS: Final = {"accuracy": 1.0, "loss": 10.0}
_MEASURED: Final = Spec.of(dict.fromkeys(("clients", *_METRICS), _ONE))
_LONGEST: Final = math.sqrt(len(_MEASURED))


class Guarded:
    """See the module's docstring. ``spec``: of the weights that travel. ``noise``: from a cryptographic source, or a
    test's."""

    def __init__(self, spec: Spec, central: Central, noise: Noise) -> None:
        self._central, self._noise = central, noise
        self._names = spec.names
        self._sum, self._measures = BoundedSum(spec), BoundedSum(_MEASURED)
        self.bound = central.bound
        """Of the next round, once this one is aggregated."""
        self._past = NOTHING
        self.clear()

    def clear(self) -> None:
        """For the next round."""
        self._sum.clear(self.bound)
        self._measures.clear(_LONGEST)

    def fold(self, update: Tensors, share: Share, lost: float = 0.0) -> None:  # noqa: ARG002 - has no bound
        """Clip an update's weights, scaled as the strategy says, and add them. Raises SpecError for one that is to
        count for more than others, or in some groups only, or brings facts: none of it has a bound."""
        if share.weight != 1.0 or share.groups is not None or share.facts:
            raise SpecError("Expected updates that count alike, in all groups, without facts, under central privacy.")
        self._sum.fold(clip({n: update[n] for n in self._names}, self.bound, share.scale))

    def measure(self, report: pb.Report) -> None:
        """Add a client's metrics, if it has any. What is no number of [0, 1] counts as the nearest end of it."""
        if report.held_out:
            said = {"accuracy": report.accuracy, "loss": report.held_out_loss}
            cut = {name: np.full(1, np.clip(said[name] / top, 0.0, 1.0), np.float32) for name, top in _METRICS.items()}
            self._measures.fold(clip({"clients": _ONE, **cut}, _LONGEST))

    def aggregate(self, population: int) -> Aggregate:
        """The noised mean, of ``population`` enrolled clients; to be called once a round."""
        central, total, noise = self._central, self._sum, self._noise
        multiplier = central.multiplier
        if central.adaptive is not None:
            multiplier = central.adaptive.remaining(multiplier)
            self.bound = central.adaptive.step(self.bound, central.adaptive.share(total.inside, total.count, noise))
        if central.banded is None:
            mean = total.release(multiplier, central.divisor, noise)
        else:
            mean, self._past = total.release_correlated(multiplier, central.divisor, noise, central.banded, self._past)
        return Aggregate(mean, round(central.divisor), population)

    def metrics(self) -> dict[str, float]:
        """Noised sums of clients' metrics over the noised number of clients, taken for one at least; once a round."""
        found = self._measures.release(self._central.metrics, 1.0, self._noise)
        clients = max(1.0, float(found["clients"][0]))
        return {name: float(np.clip(found[name][0] / clients, 0.0, 1.0)) * top for name, top in _METRICS.items()}

    @property
    def state(self) -> dict[str, Array]:
        """What the next round needs, to be kept with the version that this one makes."""
        return {"bound": np.array([self.bound]), **prefixed({"past": self._past})}

    def restore(self, state: Tensors) -> None:
        """Go on from a kept state."""
        self.bound, self._past = float(state["bound"][0]), part(state, "past")
        self.clear()
