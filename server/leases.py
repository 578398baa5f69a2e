"""The words that the coordinator speaks: phases, leases, the actions it asks for, the answers it gives. Plain values.

A lease is one client's invitation to one round. It begins open and ends once, by one of four fates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fedpress.server.selection.candidate import Select


class Phase(Enum):
    """Where the run stands."""

    GATHERING = "gathering"
    TRAINING = "training"
    STEPPING = "stepping"
    EVALUATING = "evaluating"
    FINISHED = "finished"


class Fate(Enum):
    """How a lease stands or ended."""

    OPEN = "open"
    COUNTED = "counted"
    REJECTED = "rejected"
    DECLINED = "declined"
    STALE = "stale"


@dataclass(frozen=True)
class Rules:
    """What the plan says about rounds. ``cohort`` maps the number of present clients to the size wanted.

    A client is present for ``presence_s`` after it called, and while it is at work. After a restart, the next round
    waits up to ``regroup_s`` for the clients that were enrolled: they find the server again at their own pace. A lease
    stays open for ``max_staleness`` rounds after its own. ``require``: what a client's condition must meet. ``buffer``
    and ``concurrency`` (as ``cohort``) are those of ``Buffered``, ``pool`` that of ``Sampled``. ``once``: nobody is
    invited whose update is in the current round already, whichever version it builds on.
    """

    rounds: int
    cohort: Callable[[int], int]
    select: Select
    require: Sequence[str] = ()
    min_clients: int = 1
    min_updates: int = 1
    over_select: float = 1.0
    deadline_s: float = 600.0
    presence_s: float = 90.0
    regroup_s: float = 30.0
    final_evaluation: bool = False
    max_staleness: int = 0
    buffer: int = 0
    concurrency: Callable[[int], int] = lambda present: present
    pool: int = 1
    once: bool = False


@dataclass(frozen=True)
class Lease:
    """One client's invitation to one round: to train on version ``round - 1``, or to evaluate version ``round``.
    ``handed``: the client was told, and may be at work."""

    id: str
    client: str
    round: int
    evaluate: bool = False
    fate: Fate = Fate.OPEN
    handed: bool = False

    @property
    def base(self) -> int:
        """The number of the version it works on."""
        return self.round if self.evaluate else self.round - 1


def count(leases: Iterable[Lease], fate: Fate) -> int:
    """How many of them stand or ended so."""
    return sum(lease.fate is fate for lease in leases)


@dataclass(frozen=True)
class Issue:
    """Action: make these leases durable, then wake whoever polls. ``opens``: they are the first of their round."""

    round: int
    leases: tuple[Lease, ...]
    opens: bool = False


@dataclass(frozen=True)
class Lapse:
    """Action: make durable that this lease ended stale. ``reason``: for people, if it is worth a word."""

    lease: Lease
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """Action: aggregate the round and call ``stepped``."""

    round: int


@dataclass(frozen=True)
class Finish:
    """Action: the run is over."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Action: tell people."""

    text: str


Action = Issue | Lapse | Step | Finish | Note


class Carried(NamedTuple):
    """What committing a round does to open leases: these end stale, these go on as leases of the next round, since
    nobody works on them yet. All others stay as they are."""

    ended: tuple[Lease, ...]
    renewed: tuple[Lease, ...]


@dataclass(frozen=True)
class Grant:
    """Answer to a poll: work on this lease."""

    lease: Lease
    seconds_left: float


@dataclass(frozen=True)
class Hold:
    """Answer to a poll: nothing yet."""

    reason: str


@dataclass(frozen=True)
class Over:
    """Answer to a poll: the run is finished."""

    reason: str
