"""What a session is told: how the action it asked for went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Enrolled:
    """In. ``held``: hash of the model on the device; ``pending``: ticket of an update not yet acknowledged."""

    held: str = ""
    pending: bytes = b""


@dataclass(frozen=True)
class GotTicket:
    """Work."""

    ticket: pb.Ticket


@dataclass(frozen=True)
class GotWait:
    """No work for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class GotFinished:
    """The run is over."""

    reason: str


@dataclass(frozen=True)
class GotBlob:
    """The whole blob is here and its bytes have its hash."""


@dataclass(frozen=True)
class BadBlob:
    """The bytes do not have the blob's hash."""


@dataclass(frozen=True)
class Rebuilt:
    """The ticket's model is here, its hash confirmed."""


@dataclass(frozen=True)
class RebuildFailed:
    """It is not: another hash, or a blob that does not decode."""

    reason: str


@dataclass(frozen=True)
class Trained:
    """The work is done and the update is in the vault, pending."""


@dataclass(frozen=True)
class CannotTrain:
    """The device must decline; ``final`` where it could never do this run's work."""

    reason: str
    final: bool = False


@dataclass(frozen=True)
class GotOffset:
    """How many bytes of the update the server holds, or that it acknowledged the whole."""

    offset: int
    acknowledged: bool = False


@dataclass(frozen=True)
class Acknowledged:
    """The server has it, durably."""


@dataclass(frozen=True)
class Settled:
    """The vault has done it."""


@dataclass(frozen=True)
class Refused:
    """The server said no. ``fault`` is a name of ``fedpress.v1.Fault``; ``retry_after`` in seconds."""

    fault: str
    message: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Gone:
    """The server cannot be reached. ``kept``: bytes of the blob in hand so far."""

    kept: int = 0


@dataclass(frozen=True)
class Rested:
    """The pause is over."""


Event: TypeAlias = (
    Enrolled
    | GotTicket
    | GotWait
    | GotFinished
    | GotBlob
    | BadBlob
    | Rebuilt
    | RebuildFailed
    | Trained
    | CannotTrain
    | GotOffset
    | Acknowledged
    | Settled
    | Refused
    | Gone
    | Rested
)
