"""What a selection rule is told of a client: facts as values, so that a rule is a function of them and of a seed.

Zero, None and the default ``Condition`` mean "not known". Oort (Lai et al., OSDI 2021: usefulness from the loss, times
a penalty for slowness) and power-of-choice (Cho, Wang and Joshi, AISTATS 2022: the largest losses of a random few) need
no facts beyond these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True)
class Condition:
    """What a device says of itself now: on mains power, on a link that costs nothing, in use by its owner."""

    charging: bool | None = None
    unmetered: bool | None = None
    busy: bool | None = None


#: ``cohort.require``: the field of a Condition, and what it must not say. Who says nothing meets every requirement.
REQUIREMENTS: Final = {"charging": ("charging", False), "unmetered": ("unmetered", False), "idle": ("busy", True)}


@dataclass(frozen=True)
class Candidate:
    """One present client, by its name.

    ``examples``, ``loss`` (mean, in training), ``train_seconds`` (with coding), ``bytes_up`` and ``bytes_down`` are of
    its last update. ``link_up`` and ``link_down``: bytes per second. ``participations``: times it was invited to
    train, ``last_round`` the last of them. ``late_after``: seconds after which a round closed without it, if that was
    how its last one ended.
    """

    name: str
    examples: int = 0
    loss: float | None = None
    train_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    link_up: float = 0.0
    link_down: float = 0.0
    participations: int = 0
    last_round: int = 0
    late_after: float = 0.0
    condition: Condition = Condition()

    def meets(self, require: Sequence[str]) -> bool:
        """It says nothing that speaks against ``require``, names of ``REQUIREMENTS``."""
        return all(getattr(self.condition, key) is not bad for key, bad in map(REQUIREMENTS.__getitem__, require))

    @property
    def seconds(self) -> float:
        """How long a round with it is expected to take: download, training, upload; or longer, if it was late. NaN
        where nothing was measured; what is not known of a link counts as no time."""
        if not self.train_seconds and not self.late_after:
            return math.nan
        down = self.bytes_down / self.link_down if self.link_down else 0.0
        up = self.bytes_up / self.link_up if self.link_up else 0.0
        return max(self.late_after, down + self.train_seconds + up)


#: ``select(candidates, count, round, drawn_before)``: the names of ``count`` of the candidates, which are in the order
#: of their names. ``drawn_before`` counts the clients already invited to this round, so that replacements are a fresh
#: draw. Same arguments, same names.
Select: TypeAlias = Callable[[Sequence[Candidate], int, int, int], list[str]]
