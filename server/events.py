"""What a run tells those who watch it: progress views, logs, journals. Plain values; nobody has to listen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fedpress.params import Tensors


@dataclass(frozen=True)
class ClientJoined:
    """A device enrolled (or came back)."""

    name: str
    enrolled: int


@dataclass(frozen=True)
class RoundOpened:
    """These clients were invited. ``evaluation``: to measure the last model, not to train."""

    round: int
    of: int
    cohort: tuple[str, ...]
    evaluation: bool = False


@dataclass(frozen=True)
class WorkTaken:
    """A client asked for its ticket and is now fetching and training."""

    name: str
    round: int


@dataclass(frozen=True)
class UpdateCounted:
    """An update is durable and folded into a round, so many versions late. ``payload``, ``uncompressed``: bytes."""

    name: str
    round: int
    payload: int
    uncompressed: int
    staleness: int = 0


@dataclass(frozen=True)
class ClientFailed:
    """A client's update was refused or came too late, or it gave its ticket back; the run goes on without it."""

    name: str
    round: int
    reason: str


@dataclass(frozen=True)
class RoundClosed:
    """The round is committed and, where the plan says so, evaluated: a line of ``rounds.jsonl``, and its model."""

    record: Mapping[str, Any]
    model: Tensors


@dataclass(frozen=True)
class BestModel:
    """The model after ``round`` is the best so far. Heard before the record that says so is kept."""

    round: int
    value: float
    model: Tensors


@dataclass(frozen=True)
class Noted:
    """Something people should read."""

    text: str


@dataclass(frozen=True)
class Warned:
    """A run sees for the first time that something keeps it from doing its job: ``server.watch.RunWarning``."""

    kind: str
    round: int
    text: str


@dataclass(frozen=True)
class RunFinished:
    """No more rounds."""

    reason: str


Event: TypeAlias = (
    ClientJoined
    | RoundOpened
    | WorkTaken
    | UpdateCounted
    | ClientFailed
    | RoundClosed
    | BestModel
    | Noted
    | Warned
    | RunFinished
)
Listener: TypeAlias = Callable[[Event], None]
