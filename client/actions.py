"""What a session asks for. Each is answered by one event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class DoEnrol:
    """Enrol with the device's key: a server that knows it knows the device."""


@dataclass(frozen=True)
class AskWork:
    """Ask for work, saying which model is held ("" for none)."""

    held: str


@dataclass(frozen=True)
class Fetch:
    """Fetch a blob from ``offset`` on; what came before is kept."""

    blob: pb.Blob
    offset: int


@dataclass(frozen=True)
class Rebuild:
    """Decode the ticket's blobs and confirm the model's hash."""

    ticket: pb.Ticket


@dataclass(frozen=True)
class Train:
    """Do the work, encode it, and keep the update in the vault as pending."""

    ticket: pb.Ticket


@dataclass(frozen=True)
class Decline:
    """Give the ticket back."""

    ticket: bytes
    reason: str


@dataclass(frozen=True)
class AskOffset:
    """Ask how much of the pending update the server holds."""

    ticket: bytes


@dataclass(frozen=True)
class Push:
    """Send the pending update from ``offset`` on."""

    ticket: bytes
    offset: int


@dataclass(frozen=True)
class Commit:
    """Make the pending state the state."""

    ticket: bytes


@dataclass(frozen=True)
class Drop:
    """Forget the pending update; the old residual stays, unless ``anew``: then the codec forgets it too."""

    ticket: bytes
    reason: str
    anew: bool = False


@dataclass(frozen=True)
class Sleep:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Stop:
    """Nothing more to do. ``failed`` where the run is not over but this device cannot take part."""

    reason: str
    failed: bool


Action: TypeAlias = (
    DoEnrol | AskWork | Fetch | Rebuild | Train | Decline | AskOffset | Push | Commit | Drop | Sleep | Stop
)
