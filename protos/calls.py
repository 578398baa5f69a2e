"""The calls of ``fedpress.v1.Fleet`` as a table, read from the descriptor: what both gRPC skins are built from.

Generated stubs would hide the serialisers; here they are in the open, which is where bytes are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from fedpress.protos import fleet_pb2 as pb

PROTOCOL: Final = 2

#: Bytes of gRPC's length-prefixed message header.
FRAME_BYTES: Final = 5

#: A payload of so many bytes at most rides along with the message that announces it.
SMALL_BYTES: Final = 4096

#: Metadata keys. The identity's is short because it is sent in full with each call: gRPC's HPACK encoder indexes the
#: path and its own headers, but none of an application's (seen through the counting proxy).
IDENTITY_KEY: Final = "key-bin"
FAULT_KEY: Final = "fedpress-fault"
RETRY_KEY: Final = "fedpress-retry-after"

#: The gRPC status that goes with each fault, as ``fleet.proto`` promises.
STATUS: Final[Mapping[str, grpc.StatusCode]] = {
    "FAULT_UNSPECIFIED": grpc.StatusCode.INTERNAL,
    "FAULT_PROTOCOL": grpc.StatusCode.FAILED_PRECONDITION,
    "FAULT_NOT_ENROLLED": grpc.StatusCode.UNAUTHENTICATED,
    "FAULT_INCAPABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "FAULT_UNKNOWN_TICKET": grpc.StatusCode.NOT_FOUND,
    "FAULT_STALE_ROUND": grpc.StatusCode.FAILED_PRECONDITION,
    "FAULT_WRONG_MODEL": grpc.StatusCode.FAILED_PRECONDITION,
    "FAULT_UPDATE_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "FAULT_MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "FAULT_UNKNOWN_BLOB": grpc.StatusCode.NOT_FOUND,
    "FAULT_BAD_OFFSET": grpc.StatusCode.OUT_OF_RANGE,
    "FAULT_BUSY": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "FAULT_NO_RELEASE": grpc.StatusCode.NOT_FOUND,
    "FAULT_WRONG_MEMORY": grpc.StatusCode.FAILED_PRECONDITION,
}
if set(STATUS) != set(pb.Fault.keys()):
    raise RuntimeError("STATUS and the proto's enum Fault name different faults.")


@dataclass(frozen=True)
class Call:
    """One method: its gRPC path, its message classes and which sides stream."""

    name: str
    path: str
    request: Callable[[], Message]
    reply: Callable[[], Message]
    request_streams: bool
    reply_streams: bool

    def parse_request(self, data: bytes) -> Any:
        """A request from bytes. Raises google.protobuf.message.DecodeError."""
        message = self.request()
        message.ParseFromString(data)
        return message

    def parse_reply(self, data: bytes) -> Any:
        """A reply from bytes. Raises google.protobuf.message.DecodeError."""
        message = self.reply()
        message.ParseFromString(data)
        return message


def head_bytes(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Bytes of a call's head that are sent in full with each call: the identity in its metadata."""
    return sum(len(name) + len(value) for name, value in metadata if name == IDENTITY_KEY)


_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Fleet"]
SERVICE: Final[str] = _SERVICE.full_name
CALLS: Final[Mapping[str, Call]] = {
    method.name: Call(
        name=method.name,
        path=f"/{_SERVICE.full_name}/{method.name}",
        request=GetMessageClass(method.input_type),
        reply=GetMessageClass(method.output_type),
        request_streams=method.client_streaming,
        reply_streams=method.server_streaming,
    )
    for method in _SERVICE.methods
}
