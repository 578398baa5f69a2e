"""The codec of one client's next update, and of the next download: the plan's, its rate on schedule; or, with the codec
"auto", one that can be trusted on any model.

    *Updates* are dithered. A dead zone keeps back the numbers that are small in every update, again and again: of light
    tails (Adam), of skewed clients whose large numbers are each their own, of embeddings that few examples touch. The
    model then learns the wrong thing, however little energy was lost. ``dither`` sends every number in the mean; its
    noise averages out over the clients of a round, and with feedback around it over rounds.

    *Fewer clients* share a mean: finer for it. *Clients that come rarely* are coded finer too, for what one of their
    updates loses is stale when it comes back, and nothing is predicted for them.

    *Downloads* are the same to all devices, and nothing averages their noise out: they are finer. Where all come each
    round, a dithered delta; else steps that add up exactly, so that whoever missed versions gets one delta
    (``compression.download``).

    *A model so small* that its messages weigh more than its numbers is sent nearly as it is.

    *Strategies that correct* devices' steps by the update as it was decoded (SCAFFOLD, FedDyn) bring back by themselves
    what a codec loses. With feedback it would come back twice, and grow: they have none.

    *Under privacy* updates are noise, mostly: a fine dither, without the feedback that would be clipped.

A plan may set a floor, the least share of the energy to keep. Nothing here reads a clock: the same seed gives the same
codecs, also after a restart. Long-tailed updates of clients that come each round take a third of the bits with a dead
zone (``nmse``, ``ecsq``): whoever knows that of a model may name one in the plan. The idea that choosing a codec is a
codec's work is hivemind's (Ryabinin et al. 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from fedpress.plan import Plan
from fedpress.sections import AUTO, Download, Upload
from fedpress.server.strategies import STRATEGIES

#: The rate or loss of the last stage that has one, in a codec's canonical text.
_RATE: Final = re.compile(r"(.*\b(?:ecsq|dither|nmse):)([0-9.e-]+)")
#: Parameters of a model that is sent nearly as it is, and what it may lose.
_TINY: Final = 640
_NEARLY_EXACT: Final = 0.002
#: The rate of dithered uploads by the clients in a round's mean, and of those of clients that come rarely.
_RATES: Final = ((8, 2.85), (4, 2.5), (0, 2.0))
_RARE_RATE: Final = 2.0
#: The rate of dithered downloads, and what deltas that add up may lose.
_DOWN_RATE: Final = 1.5
_LATTICE_LOSS: Final = 0.2
_PRIVATE_RATE: Final = 1.5
#: The rate of uploads without feedback, of a strategy that brings back itself what they lose.
_CORRECTED_RATE: Final = 2.0
#: What stands before uploads of clients that come often, and rarely: less than this share of the rounds.
_PREDICTED: Final = "ef:0.9+predict:0.5+"
_KEPT: Final = "ef:0.9+"
_OFTEN: Final = 0.5


@dataclass(frozen=True)
class Facts:
    """What is known when a codec is chosen.

    ``parameters``: of what travels. ``cohort``: clients whose updates make a round. ``often``: each of them comes in
    half of the rounds at least. ``private``: updates carry noise, or are clipped and get some. ``corrects``: the
    strategy brings back what a codec loses.
    """

    parameters: int
    cohort: int
    often: bool
    private: bool = False
    corrects: bool = False

    @classmethod
    def of(cls, plan: Plan, parameters: int) -> Facts:
        """Of a plan's rounds."""
        cohort = plan.cohort.buffer or plan.cohort_size(plan.clients.count)
        often = not plan.cohort.buffer and plan.cohort.fraction >= _OFTEN
        corrects = STRATEGIES[plan.strategy.name].corrects
        return cls(parameters, cohort, often, plan.privacy.mode != "none", corrects)


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
        codec = f"{_PREDICTED}nmse:{min(_NEARLY_EXACT, 1.0 - floor):.4g}"
        return Choice(codec, "a model smaller than its messages: nearly exact")
    if facts.private:
        return Choice(_dithered("", _PRIVATE_RATE, floor), "under privacy: a fine dither, without feedback")
    if facts.corrects:
        return Choice(_dithered("", _CORRECTED_RATE, floor), "the strategy brings back what is lost: without feedback")
    if not facts.often:
        return Choice(_dithered(_KEPT, _RARE_RATE, floor), "clients come rarely: finer, and nothing is predicted")
    rate = next(rate for least, rate in _RATES if facts.cohort >= least)
    return Choice(_dithered(_PREDICTED, rate, floor), f"dithered, for the mean of {facts.cohort} clients")


def download(facts: Facts, floor: float = 0.0) -> Choice:
    """The codec of the versions that devices fetch."""
    if facts.parameters <= _TINY:
        return Choice(_lattice(_NEARLY_EXACT, floor), "a model smaller than its messages: nearly exact")
    if facts.private or not facts.often:
        return Choice(_lattice(_LATTICE_LOSS, floor), "clients come rarely: deltas that add up")
    return Choice(_dithered("", _DOWN_RATE, floor), "dithered")


def possible(settings: Upload | Download) -> tuple[str, ...]:
    """Codecs of every kind that may be chosen: what a device must know."""
    if settings.codec != AUTO:
        return (settings.codec,)
    if isinstance(settings, Upload):
        return f"{_PREDICTED}nmse", f"{_PREDICTED}dither", "dither"
    return _lattice(_LATTICE_LOSS, settings.floor), "dither"


def _lattice(lost: float, floor: float) -> str:
    return f"nmse:{min(lost, 1.0 - floor):.4g},ladder=true"


def _dithered(before: str, rate: float, floor: float) -> str:
    """A twelfth of the squared rate is lost, with a step rounded up."""
    most = (12 * (1.0 - floor)) ** 0.5 / (1 + 1 / 128)
    return f"{before}dither:{min(rate, most):.4g}"
