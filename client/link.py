"""The calls a device makes, in terms of the proto's messages, whatever carries them, and the count of their bytes.

``GrpcLink`` carries them over a socket; a simulation's inline engine carries them through a function call. Both count
each message as gRPC would send it, its serialised bytes and the five bytes of the gRPC frame in front (compression
flag and length), and with each call the device's identity. HTTP/2's own framing, the path, which it sends once per
connection, and TCP are outside this count.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final, Protocol

from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import FRAME_BYTES

#: A transfer of fewer bytes measures latency, not bandwidth, and does not change the rate.
SMALLEST_MEASURED: Final = 4096
#: Weight of the newest transfer in the running mean.
_NEWEST: Final = 0.3


class Rate:
    """An exponentially weighted mean of bytes per second over real transfers; 0.0 until one was measured."""

    def __init__(self) -> None:
        self.bytes_per_s = 0.0

    def measured(self, size: int, seconds: float) -> None:
        """Take in a transfer of ``size`` bytes. Small ones and those too short for the clock are left out."""
        if size < SMALLEST_MEASURED or seconds <= 0:
            return
        now = size / seconds
        self.bytes_per_s = now if self.bytes_per_s == 0 else (1 - _NEWEST) * self.bytes_per_s + _NEWEST * now


class Traffic:
    """What a link sent and received, in bytes, and how fast. gRPC serialises on threads of its own, hence the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent = 0
        self.received = 0
        self.up = Rate()
        self.down = Rate()

    def count_head(self, head_bytes: int) -> None:
        """A call was made."""
        with self._lock:
            self.sent += head_bytes

    def count_sent(self, message_bytes: int) -> None:
        """One message went out."""
        with self._lock:
            self.sent += message_bytes + FRAME_BYTES

    def count_received(self, message_bytes: int) -> None:
        """One message came in."""
        with self._lock:
            self.received += message_bytes + FRAME_BYTES


class Link(Protocol):
    """The calls of ``fedpress.v1.Fleet``. Each raises ``Refused`` with the server's fault, or ``ServerGone``."""

    traffic: Traffic
    server: str
    """The host, without its port: what an identity is bound to, so that no other server is shown the key."""

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Join, or show an earlier identity. Takes the size of chunks from the reply."""

    def authenticate(self, key: bytes) -> None:
        """Send this key with every later call: it says who calls, and proves it."""

    def get_work(self, request: pb.WorkRequest) -> pb.WorkReply:
        """Ask for work; held by the server up to ``request.wait_seconds``."""

    def fetch(self, blob: bytes, offset: int) -> Iterator[bytes]:
        """The bytes of the blob with this SHA-256 from ``offset`` on, in order, in chunks."""

    def offset(self, ticket: bytes) -> pb.OffsetReply:
        """How much of this ticket's update the server holds."""

    def push(self, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        """Send ``payload[header.offset:]``. Returning means: durable on the server."""

    def decline(self, ticket: bytes, reason: str) -> pb.DeclineReply:
        """Give a ticket back."""

    def release(self, device_class: str) -> pb.Release:
        """The newest shipped model for a device class."""

    def close(self) -> None:
        """Let go of the connection. A call in flight raises ``ServerGone``."""
