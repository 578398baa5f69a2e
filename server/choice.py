"""The codec of one client's next update, and of the next download: the plan's, its rate on schedule; or, with the codec
"auto", one that is chosen by what was seen of the run.

    *A model so small* that its messages weigh more than its numbers is sent nearly as it is.

    *The first rounds* decide where a run goes: a fine dead-zone quantiser, ``nmse``. They also show how updates are
    distributed, by the bits that a known loss takes.

    *Long tails, and clients that come each round*: a dead zone with feedback takes the fewest bits there are. It grows
    coarser from round to round, since late ones move the model little, and mostly by noise.

    *Everything else*: numbers of one size (Adam), small numbers that all clients agree on beside large ones that are
    each client's own (skewed data, embeddings), clients that come rarely. A dead zone keeps back the small numbers,
    again and again, and the model learns the wrong thing whatever the energy lost; ``dither`` sends each of them in the
    mean, and its noise averages out over clients. With feedback around it, over rounds too.

    *Under privacy* all updates are noise, mostly: a fine dither, without the feedback that would be clipped.

    *Downloads* are the same to all devices. Where all come each round, a dithered delta; else steps that add up
    exactly, so that whoever missed versions gets one delta (``compression.download``).

A plan may set a floor, the least share of the energy to keep. Nothing here reads a clock: the same seed gives the same
codecs, also after a restart. The idea that choosing a codec is a codec's work is hivemind's (Ryabinin et al. 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from fedpress.plan import Plan
from fedpress.sections import AUTO, Download, Upload

#: The rate or loss of the last stage that has one, in a codec's canonical text.
_RATE: Final = re.compile(r"(.*\b(?:ecsq|dither|nmse):)([0-9.e-]+)")
#: Parameters of a model that is sent nearly as it is, and what it may lose.
_TINY: Final = 640
_NEARLY_EXACT: Final = 0.002
#: Rounds that show what updates are like, and what may be lost in them.
PROBING: Final = 2
_FIRST_LOSS: Final = 0.2
#: The share of the energy that may be lost of long-tailed updates and their downloads, in the first round and the last.
_UP: Final = (0.3, 0.6)
_DOWN: Final = (0.2, 0.5)
#: The rate of dithered uploads by the size of the cohort, whose mean takes the noise out; of downloads, in the first
#: round and the last; and what a lattice may lose in its place.
_RATES: Final = ((8, 2.85), (4, 2.5), (0, 2.0))
_DOWN_RATE: Final = (1.5, 2.5)
_LATTICE_LOSS: Final = 0.2
_PRIVATE_RATE: Final = 1.5
_PREDICTED: Final = "ef:0.9+predict:0.5+"
_KEPT: Final = "ef+"
#: Clients that come less often than this share of the rounds come rarely.
_OFTEN: Final = 0.5


@dataclass(frozen=True)
class Facts:
    """What is known when a codec is chosen.

    ``parameters``: of what travels. ``cohort``: clients whose updates make a round. ``often``: each of them comes in
    half of the rounds at least. ``round``: from 1, of ``rounds``. ``light``: updates have light tails; None where that
    is not known yet. ``private``: updates carry noise, or are clipped and get some.
    """

    parameters: int
    cohort: int
    often: bool
    round: int
    rounds: int
    light: bool | None
    private: bool = False

    @classmethod
    def of(cls, plan: Plan, parameters: int, round_: int, light: bool | None) -> Facts:
        """Of a plan's round."""
        cohort = plan.cohort.buffer or plan.cohort_size(plan.clients.count)
        often = not plan.cohort.buffer and plan.cohort.fraction >= _OFTEN
        private = plan.privacy.mode != "none"
        return cls(parameters, cohort, often, round_, plan.run.rounds, light, private)

    @property
    def progress(self) -> float:
        """The share of the rounds that are over, 0 to 1."""
        return min(1.0, max(0.0, (self.round - 1) / max(1, self.rounds - 1)))


class Choice(NamedTuple):
    """A codec's text, and why."""

    codec: str
    reason: str


def scheduled(text: str, rate_end: float, share: float) -> str:
    """The codec ``text`` with its rate on the way to ``rate_end`` (0: as it is) after a ``share`` of the rounds."""
    found = _RATE.search(text)
    if not rate_end or found is None:
        return text
    rate = float(found[2])
    return f"{text[: found.start(2)]}{rate + (rate_end - rate) * share:.4g}{text[found.end(2) :]}"


def upload(facts: Facts, floor: float = 0.0) -> Choice:
    """The codec for a client's next update. ``floor``: the least share of the energy to keep."""
    if facts.parameters <= _TINY:
        return Choice(_dead_zone(_PREDICTED, _NEARLY_EXACT, floor), "a model smaller than its messages: nearly exact")
    if facts.private:
        return Choice(_dithered("", _PRIVATE_RATE, floor), "under privacy: a fine dither, without feedback")
    if facts.round <= PROBING:
        before = _PREDICTED if facts.often else _KEPT
        return Choice(_dead_zone(before, _FIRST_LOSS, floor), "a first round: fine, and a look at the tails")
    if facts.often and facts.light is False:
        lost = _between(_UP, facts.progress)
        reason = f"long tails: a dead zone, coarser late ({100 * facts.progress:.0f} % of the rounds)"
        return Choice(_dead_zone(_PREDICTED, lost, floor), reason)
    rate = next(rate for least, rate in _RATES if facts.cohort >= least)
    before, why = (_PREDICTED, "light tails") if facts.often else (_KEPT, "clients come rarely")
    return Choice(_dithered(before, rate, floor), f"{why}: dithered, for the mean of {facts.cohort} clients")


def download(facts: Facts, floor: float = 0.0) -> Choice:
    """The codec of the version that devices fetch in ``facts.round``."""
    if facts.parameters <= _TINY:
        return Choice(_lattice(_NEARLY_EXACT, floor), "a model smaller than its messages: nearly exact")
    if facts.private or not facts.often or facts.round <= PROBING:
        return Choice(_lattice(_LATTICE_LOSS, floor), "deltas that add up")
    if facts.light is False:
        return Choice(_lattice(_between(_DOWN, facts.progress), floor), "long tails: a dead zone, coarser late")
    return Choice(_dithered("", _between(_DOWN_RATE, facts.progress), floor), "light tails: dithered")


def possible(settings: Upload | Download) -> tuple[str, ...]:
    """Codecs of every kind that may be chosen: what a device must know."""
    if settings.codec != AUTO:
        return (settings.codec,)
    if isinstance(settings, Upload):
        return f"{_PREDICTED}nmse", f"{_PREDICTED}dither", "dither"
    return "nmse:0.2,ladder=true", "dither"


def _between(ends: tuple[float, float], progress: float) -> float:
    start, end = ends
    return start + (end - start) * progress


def _dead_zone(before: str, lost: float, floor: float) -> str:
    return f"{before}nmse:{min(lost, 1.0 - floor):.4g}"


def _lattice(lost: float, floor: float) -> str:
    return f"nmse:{min(lost, 1.0 - floor):.4g},ladder=true"


def _dithered(before: str, rate: float, floor: float) -> str:
    """A twelfth of the squared rate is lost, with a step rounded up."""
    most = (12 * (1.0 - floor)) ** 0.5 / (1 + 1 / 128)
    return f"{before}dither:{min(rate, most):.4g}"
