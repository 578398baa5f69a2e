"""What a device says of its work, for people and progress views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "enrolled",
    "fetched",
    "evaluated",
    "trained",
    "pushed",
    "dropped",
    "declined",
    "refused",
    "gone",
    "back",
    "done",
]


@dataclass(frozen=True)
class Note:
    """Something that happened, in round ``round``; 0 before the first."""

    kind: Kind
    text: str
    round: int = 0
