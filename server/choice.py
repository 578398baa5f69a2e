"""The codec of one client's next update: the plan's, its rate on schedule; or, with ``upload.codec = "auto"``, one that
is chosen from what was measured of the client.

Two questions, each with a reason that stands in the round's record (the idea that choosing a codec is a codec's work is
hivemind's, Ryabinin et al. 2021; the rates are those of ``fedpress bench traffic``):

    *Which family?* Error feedback pays while a device comes back soon: what one update loses the next one carries. From
    a device that comes rarely the residual is stale, and in the benchmarks updates without feedback did better.

    *Which rate?* The finest at which the upload takes at most a tenth of the time that the device has for a round
    anyway: its training, or the round's deadline where that is not known. A slow link gets a coarser step.

A device on which coding itself takes a quarter of a second, and more than a tenth of its training, gets the entropy
stage's cheaper model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from fedpress.sections import AUTO, Upload

#: The rate of the last stage that has one, in a codec's canonical text.
_RATE: Final = re.compile(r"(.*\b(?:ecsq|dither):)([0-9.e-]+)")
#: Bits per parameter that the rates of ``ecsq`` took on what runs really sent: for planning only.
BITS: Final[Mapping[float, float]] = {2.0: 0.75, 2.5: 0.4, 3.0: 0.3, 4.0: 0.12, 6.0: 0.03}
#: Family and rate for clients that come often, and rarely, where nothing was measured yet.
OFTEN: Final = ("ef:0.9+predict:0.5+", 3.0)
RARELY: Final = ("", 2.5)
_OFTEN: Final = 0.5
_SHARE: Final = 0.1
_NOTICED_S: Final = 0.25
_FEW: Final = 4  # rounds before a client's habits count


@dataclass(frozen=True)
class Facts:
    """What is known of a client. Zero: not measured.

    ``link_up``: bytes per second. ``train_seconds``, ``encode_seconds``: of its last update. ``invited``: rounds it was
    invited to, of the last ``rounds``. ``deadline_s``: of a round.
    """

    parameters: int
    link_up: float = 0.0
    train_seconds: float = 0.0
    encode_seconds: float = 0.0
    invited: int = 0
    rounds: int = 0
    deadline_s: float = 0.0


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


def choose(facts: Facts) -> Choice:
    """The codec for one client's next update."""
    often = facts.rounds < _FEW or facts.invited >= _OFTEN * facts.rounds
    family = "takes part often" if often else f"takes part in {facts.invited} of {facts.rounds} rounds: no feedback"
    wrapper, usual = OFTEN if often else RARELY
    rate, why = _rate(facts, usual)
    model, slow = "", ""
    if facts.train_seconds > 0 and facts.encode_seconds > max(_NOTICED_S, _SHARE * facts.train_seconds):
        model, slow = ",model=adaptive", f"; coding took {facts.encode_seconds:.2f} s: the cheaper model"
    return Choice(f"{wrapper}ecsq:{rate}{model}", f"{family}; {why}{slow}")


def _rate(facts: Facts, usual: float) -> tuple[float, str]:
    budget = _SHARE * (facts.train_seconds or facts.deadline_s)
    if not facts.link_up or not budget:
        return usual, "no transfer yet was long enough to measure the link by"
    link = f"{facts.link_up / 1000:.0f} kB/s"
    for rate, bits in BITS.items():
        seconds = facts.parameters * bits / 8 / facts.link_up
        if rate >= usual and seconds <= budget:
            return rate, f"{link}: about {seconds:.2f} s of {budget:.2f} s"
    return max(BITS), f"{link}: the coarsest, more than {budget:.2f} s anyway"


def possible(upload: Upload) -> tuple[str, ...]:
    """Every codec that updates of a run may come in: what a device must know."""
    return tuple(f"{wrapper}ecsq" for wrapper, _ in (OFTEN, RARELY)) if upload.codec == AUTO else (upload.codec,)
