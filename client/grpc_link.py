"""The link over gRPC: a thin skin, built from the table of calls, that counts bytes and names faults.

Calls fail fast when the server is away; the session decides when to try again, so gRPC's own reconnection is kept
brief. Streams have a deadline because they can resume: a server that hangs costs one resumption, not the device.
Messages are bounded by the largest chunk the plan allows, before anything is allocated for them.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from fedpress.client.link import Traffic
from fedpress.errors import PlanError, Refused, ServerGone
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import CALLS, FAULT_KEY, IDENTITY_KEY, RETRY_KEY, SMALL_BYTES, Call, head_bytes

#: The largest chunk any server may ask for (``server.chunk_bytes``), and room for the rest of a message.
MAX_CHUNK: Final = 1 << 20
MAX_MESSAGE: Final = MAX_CHUNK + (1 << 16)
#: Seconds a unary call may take beyond what it asked to wait, and a stream before it is resumed.
CALL_SECONDS: Final = 30.0
STREAM_SECONDS: Final = 300.0

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
)
#: Statuses without a fault of ours: nobody there, or the connection broke.
_GONE: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED},
)
_MULTICALLABLE: Final[Mapping[tuple[bool, bool], str]] = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
}


class GrpcLink:
    """See ``fedpress.client.link.Link``. ``address`` is ``host:port``; TLS with ``root_certs`` (PEM) as the only roots.

    Without certificates the connection is plaintext, which is refused (PlanError) to any host but this one unless
    ``insecure`` says so. Connecting is lazy: a server that is away shows at the first call.
    """

    def __init__(self, address: str, root_certs: Path | None = None, insecure: bool = False) -> None:
        self.traffic = Traffic()
        self.server = _host(address)
        self._address = address
        self._chunk = MAX_CHUNK
        self._identity: tuple[tuple[str, bytes], ...] = ()
        options, none = _OPTIONS, grpc.Compression.NoCompression
        if root_certs is not None:
            roots = grpc.ssl_channel_credentials(root_certificates=_read(root_certs))
            self._channel = grpc.secure_channel(address, roots, options=options, compression=none)
        elif insecure or _loopback(self.server):
            self._channel = grpc.insecure_channel(address, options=options, compression=none)
        else:
            raise PlanError(
                f"Expected TLS to '{address}', which is not this machine: give the server's certificate, "
                "or say insecure to send keys and updates in the clear."
            )
        self._calls = {name: self._multicallable(call) for name, call in CALLS.items()}

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Join; the reply's chunk size holds for later pushes."""
        reply: pb.EnrolReply = self._call("Enrol", request)
        self._chunk = min(max(reply.chunk_bytes, 1024), MAX_CHUNK)
        return reply

    def authenticate(self, key: bytes) -> None:
        """Send this key with every later call."""
        self._identity = ((IDENTITY_KEY, key),)

    def get_work(self, request: pb.WorkRequest) -> pb.WorkReply:
        """Ask for work."""
        reply: pb.WorkReply = self._call("GetWork", request, CALL_SECONDS + request.wait_seconds)
        return reply

    def fetch(self, blob: bytes, offset: int) -> Iterator[bytes]:
        """Chunks of a blob from ``offset`` on. The rate counts the time spent waiting for the link only."""
        request = pb.FetchRequest(hash=blob, offset=offset)
        size, waited = 0, 0.0
        chunks = self._start("Fetch", request, STREAM_SECONDS)
        try:
            while True:
                began = time.monotonic()
                chunk = next(chunks, None)
                waited += time.monotonic() - began
                if chunk is None:
                    break
                size += len(chunk.data)
                yield chunk.data
        except grpc.RpcError as error:
            raise self._fault(error) from error
        finally:
            chunks.cancel()  # for a caller that had enough; after the last chunk it does nothing
            self.traffic.down.measured(size, waited)

    def offset(self, ticket: bytes) -> pb.OffsetReply:
        """How much of this ticket's update the server holds."""
        reply: pb.OffsetReply = self._call("Offset", pb.OffsetRequest(ticket=ticket))
        return reply

    def push(self, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        """Send ``payload[header.offset:]`` in chunks."""
        began = time.monotonic()
        reply: pb.PushReply = self._call("Push", push_parts(header, payload, self._chunk), STREAM_SECONDS)
        self.traffic.up.measured(len(payload) - header.offset, time.monotonic() - began)
        return reply

    def decline(self, ticket: bytes, reason: str) -> pb.DeclineReply:
        """Give a ticket back."""
        reply: pb.DeclineReply = self._call("Decline", pb.DeclineRequest(ticket=ticket, reason=reason))
        return reply

    def release(self, device_class: str) -> pb.Release:
        """The newest shipped model for a device class."""
        reply: pb.Release = self._call("GetRelease", pb.ReleaseRequest(device_class=device_class))
        return reply

    def close(self) -> None:
        """Close the channel; a call in flight is cancelled."""
        self._channel.close()

    def _multicallable(self, call: Call) -> Callable[..., Any]:
        def serialise(message: Message) -> bytes:
            data = message.SerializeToString()
            self.traffic.count_sent(len(data))
            return data

        def parse(data: bytes) -> Any:
            self.traffic.count_received(len(data))
            return call.parse_reply(data)

        kind = _MULTICALLABLE[call.request_streams, call.reply_streams]
        made: Callable[..., Any] = getattr(self._channel, kind)(call.path, serialise, parse)
        return made

    def _call(self, name: str, request: Any, seconds: float = CALL_SECONDS) -> Any:
        try:
            return self._start(name, request, seconds)
        except grpc.RpcError as error:
            raise self._fault(error) from error

    def _start(self, name: str, request: Any, seconds: float) -> Any:
        self.traffic.count_head(head_bytes(self._identity))
        try:
            return self._calls[name](request, timeout=seconds, metadata=self._identity)
        except ValueError as error:  # gRPC's word for a channel that was closed before the call
            raise ServerGone(f"The link to '{self._address}' is closed.") from error

    def _fault(self, error: Any) -> Refused:
        """What an RpcError means, by its trailing metadata first and its status second."""
        code, told = error.code(), dict(error.trailing_metadata() or ())
        message = error.details() or code.name
        if FAULT_KEY in told and told[FAULT_KEY] in pb.Fault.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
            return Refused(told[FAULT_KEY], message, _seconds(told.get(RETRY_KEY)))
        if code in _GONE:
            return ServerGone(f"No server at '{self._address}': {message}")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return Refused("FAULT_PROTOCOL", f"'{self._address}' is no fedpress.v1 server: {message}")
        return Refused("FAULT_UNSPECIFIED", f"{code.name}: {message}")


def push_parts(header: pb.PushHeader, payload: bytes, chunk: int) -> Iterator[pb.PushPart]:
    """The messages that carry ``payload[header.offset:]``, the header in the first."""
    if len(payload) - header.offset <= min(chunk, SMALL_BYTES):
        yield pb.PushPart(header=header, data=payload[header.offset :])
        return
    yield pb.PushPart(header=header)
    for at in range(header.offset, len(payload), chunk):
        yield pb.PushPart(data=payload[at : at + chunk])


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None


def _host(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise PlanError(f"Expected the server's address as host:port, got '{address}'.")
    return host.strip("[]")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlanError(f"Cannot read the certificate '{path}': {error.strerror}.") from error
