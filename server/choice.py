"""The codec of one client's next update, and of the next download: the plan's, its rate on schedule; or, with the codec
"auto", one whose loss is chosen where bytes matter.

    *When?* Early rounds decide where a run goes, and what one of them loses is missing at once; late ones move the model
    little, and mostly by noise. So the share of the energy that may be lost grows from round to round.

    *Who?* Error feedback pays while a device comes back soon: what one update loses the next one carries. From a device
    that comes rarely the residual is stale: its updates go without feedback, and finer for it.

    *How light are the tails?* That needs no choice: ``nmse`` finds the step from the update's own values.

A plan may set a floor, the least share of the energy to keep, and a budget of bits per parameter. Nothing here reads a
clock: the same seed gives the same codecs. The idea that choosing a codec is a codec's work is hivemind's (Ryabinin et
al. 2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from fedpress.sections import AUTO, Download, Upload

#: The rate or loss of the last stage that has one, in a codec's canonical text.
_RATE: Final = re.compile(r"(.*\b(?:ecsq|dither|nmse):)([0-9.e-]+)")
import os  # experiments

_E = [float(x) for x in os.environ.get("FP_AUTO", "0.2,0.6,0.2,0.5,1.0").split(",")]
#: The share that updates and downloads lose in the first round, and in the last.
UP: Final = (_E[0], _E[1])
DOWN: Final = (_E[2], _E[3])
_POWER = _E[4]
#: What goes before it for clients that come often.
OFTEN: Final = os.environ.get("FP_OFTEN", "ef:0.9+predict:0.5+")
#: What clients that come rarely may lose of what others may.
_RARELY: Final = 0.6
_OFTEN: Final = 0.5
_FEW: Final = 4  # rounds before a client's habits count
#: Bits per parameter that a loss takes on Gaussian numbers, about: for planning within a budget only.
_LEAST, _MOST = 0.02, 0.95


@dataclass(frozen=True)
class Facts:
    """What is known of a client's next update.

    ``progress``: the share of the run's rounds before it. ``invited``: rounds that the client was invited to, of the
    last ``rounds``; 0 of 0 where nothing is known.
    """

    progress: float = 0.0
    invited: int = 0
    rounds: int = 0


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


def upload(facts: Facts, settings: Upload) -> Choice:
    """The codec for one client's next update."""
    often = facts.rounds < _FEW or facts.invited >= _OFTEN * facts.rounds
    lost = _between(UP, facts.progress)
    if not often:
        lost *= _RARELY
    lost, why = _allowed(lost, settings.floor)
    who = "takes part often" if often else f"takes part in {facts.invited} of {facts.rounds} rounds: no feedback"
    return Choice(f"{OFTEN if often else ''}nmse:{lost:.3g}", f"{who}; {_when(facts.progress)}{why}")


def download(progress: float, settings: Download) -> str:
    """The codec of the version that comes after a share of the run's rounds."""
    if settings.codec != AUTO:
        return settings.codec
    lost, _ = _allowed(_between(DOWN, progress), settings.floor)
    return f"nmse:{lost:.3g},ladder=true"


def possible(settings: Upload | Download) -> tuple[str, ...]:
    """Every codec that may be chosen: what a device must know."""
    if settings.codec != AUTO:
        return (settings.codec,)
    return (f"{OFTEN}nmse", "nmse") if isinstance(settings, Upload) else ("nmse:0.5,ladder=true",)


def _between(ends: tuple[float, float], progress: float) -> float:
    start, end = ends
    return start + (end - start) * min(1.0, max(0.0, progress)) ** _POWER


def _allowed(lost: float, floor: float) -> tuple[float, str]:
    """The loss within the plan's floor, and what to say of it."""
    most = max(_LEAST, 1.0 - floor) if floor else _MOST
    return (most, f"; floor {floor:g}") if lost > most else (lost, "")


def _when(progress: float) -> str:
    return f"after {100 * progress:.0f} % of the rounds"
