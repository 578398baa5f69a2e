"""Uploads on their way in: a bounded buffer per stream, everything beyond it in the store.

What arrived before a link broke stays, so that a device resumes at that byte, also after a restart of the server (at
most the last ``_BUFFER`` bytes are asked for again). A newer stream for the same ticket takes over from an older one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from fedpress.errors import Refused
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import checksum
from fedpress.server.store import Store

_BUFFER: Final = 1 << 17


@dataclass
class Stream:
    """One open upload of the ticket's payload. ``kept`` bytes are in the store, ``buffer`` follows them."""

    ticket: str
    header: pb.PushHeader
    kept: int
    buffer: bytearray


class Inbox:
    """All open uploads of one server. Lives on the store's thread."""

    def __init__(self, store: Store) -> None:
        self._table = store.payloads
        self._streams: dict[str, Stream] = {}

    def offset(self, ticket: str) -> int:
        """Bytes of the ticket's payload that are here."""
        stream = self._streams.get(ticket)
        return stream.kept + len(stream.buffer) if stream else self._table.received(ticket)

    def open(self, ticket: str, header: pb.PushHeader, limit: int) -> Stream:
        """Start, resume or take over an upload. Raises Refused: too large, or not where the bytes here end."""
        if header.size > limit:
            raise Refused(
                "FAULT_UPDATE_TOO_LARGE", f"Expected an update of at most {limit} bytes, got {header.size} announced."
            )
        if header.offset == 0:
            self.discard(ticket)
        elif header.offset != (here := self.offset(ticket)):
            raise Refused("FAULT_BAD_OFFSET", f"Expected to resume at byte {here}, got {header.offset}.")
        if (older := self._streams.get(ticket)) is not None:
            self.suspend(older)
        stream = Stream(ticket, header, self._table.received(ticket), bytearray())
        self._streams[ticket] = stream
        return stream

    def append(self, stream: Stream, data: bytes) -> None:
        """Take a chunk. Raises Refused if another stream took over, or if more comes than was announced."""
        self._check(stream)
        if stream.kept + len(stream.buffer) + len(data) > stream.header.size:
            self.discard(stream.ticket)
            raise Refused("FAULT_UPDATE_TOO_LARGE", f"More than the announced {stream.header.size} bytes arrived.")
        stream.buffer += data
        if len(stream.buffer) >= _BUFFER:
            self._flush(stream)

    def payload(self, stream: Stream) -> bytearray:
        """The whole payload, its checksum verified. Raises Refused if it is short or damaged; it is forgotten then."""
        self._check(stream)
        header = stream.header
        have = stream.kept + len(stream.buffer)
        if have != header.size:
            raise Refused("FAULT_BAD_OFFSET", f"Expected {header.size} bytes, got {have}: resume there.")
        if stream.kept:
            self._flush(stream)  # read back in one piece of the right size: growing it would copy it
            whole = self._table.read(stream.ticket)
        else:
            whole = bytearray(stream.buffer)
        if checksum(whole) != header.checksum:
            self.discard(stream.ticket)
            raise Refused("FAULT_MALFORMED", "The update does not have the checksum its header gives.")
        return whole

    def close(self, stream: Stream) -> None:
        """The payload is complete: put its last bytes into the store (in the caller's transaction)."""
        self._flush(stream)
        del self._streams[stream.ticket]

    def suspend(self, stream: Stream) -> None:
        """The link broke: keep what is here. A newer stream of the same ticket goes on."""
        if self._streams.get(stream.ticket) is stream:
            del self._streams[stream.ticket]
            self._flush(stream)

    def discard(self, ticket: str) -> None:
        """Forget what is here of a ticket's payload."""
        self._streams.pop(ticket, None)
        self._table.discard(ticket)

    def clear(self, but: Collection[str]) -> None:
        """Forget all but what is here for tickets that are still open: the round is over, they are not."""
        self._streams = {ticket: stream for ticket, stream in self._streams.items() if ticket in but}
        self._table.settle()

    def _check(self, stream: Stream) -> None:
        if self._streams.get(stream.ticket) is not stream:
            raise Refused("FAULT_BAD_OFFSET", "A newer upload for this ticket took over.")

    def _flush(self, stream: Stream) -> None:
        if stream.buffer:
            self._table.append(stream.ticket, stream.kept, bytes(stream.buffer))
            stream.kept += len(stream.buffer)
            stream.buffer.clear()
