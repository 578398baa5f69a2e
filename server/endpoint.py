"""gRPC's side of the service: the port, and the way between calls and their bytes.

Every message is counted as it comes and goes, and whatever is raised ends its call with a status and the fault's name.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from fedpress.errors import FedpressError, Refused
from fedpress.protos.calls import CALLS, FAULT_KEY, FRAME_BYTES, RETRY_KEY, SERVICE, STATUS, Call, head_bytes
from fedpress.sections import Server as ServerSection
from fedpress.server.meter import Meter

_LOG: Final = logging.getLogger("fedpress.server")
_SLACK: Final = 1 << 14  # what an upload's chunk may weigh besides its data
_WINDOW: Final = 1 << 16  # bytes a connection may send before they are asked for, thus at most per round trip
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1", "[::1]")

Method = Callable[..., Any]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def server(chunk_bytes: int) -> grpc.aio.Server:
    """A server without a port yet, which takes messages of little more than ``chunk_bytes``."""
    return grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", chunk_bytes + _SLACK),
            ("grpc.max_send_message_length", -1),
            ("grpc.http2.bdp_probe", 0),  # or gRPC widens the window until whole updates fit into it
            ("grpc.http2.lookahead_bytes", _WINDOW),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    )


def listen(server: grpc.aio.Server, settings: ServerSection) -> int:
    """Open the port; its number. Raises FedpressError if it is taken, or if TLS is missing where it must not be."""
    s = settings
    address = f"{s.host}:{s.port}"
    try:
        if s.cert is not None and s.key is not None:
            credentials = grpc.ssl_server_credentials([(s.key.read_bytes(), s.cert.read_bytes())])
            return server.add_secure_port(address, credentials)
        if not s.insecure and s.host not in _LOOPBACK:
            raise FedpressError(
                f"Expected server.cert and server.key to listen on '{s.host}' with TLS. "
                "For a network you trust, server.insecure=true turns TLS off."
            )
        return server.add_insecure_port(address)
    except OSError as error:
        raise FedpressError(f"Cannot read the TLS certificate or key: {error}.") from error
    except RuntimeError as error:
        raise FedpressError(f"Cannot listen on {address}: the port is in use, or not yours to use.") from error


def handlers(methods: Mapping[str, Method], meter: Meter) -> Any:
    """What answers the calls of ``fleet.proto``: the methods by their names there. ``meter`` counts the bytes."""
    kinds: Mapping[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: kinds[call.request_streams, call.reply_streams](
                (_stream if call.reply_streams else _single)(methods[name], meter),
                request_deserializer=partial(_received, meter, call),
                response_serializer=partial(_sent, meter),
            )
            for name, call in CALLS.items()
        },
    )


def _single(method: Method, meter: Meter) -> Method:
    async def answer(request: Any, context: Context) -> Any:
        _count_head(meter, context)
        try:
            return await method(request, context)
        except FedpressError as error:
            await _abort(context, error)

    return answer


def _stream(method: Method, meter: Meter) -> Method:
    async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
        _count_head(meter, context)
        try:
            async for message in method(request, context):
                yield message
        except FedpressError as error:
            await _abort(context, error)

    return answer


def _count_head(meter: Meter, context: Context) -> None:
    meter.message(up=head_bytes(context.invocation_metadata() or ()))


def _received(meter: Meter, call: Call, data: bytes) -> Any:
    meter.message(up=len(data) + FRAME_BYTES)
    return call.parse_request(data)


def _sent(meter: Meter, message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    meter.message(down=len(data) + FRAME_BYTES)
    return data


def _abort(context: Context, error: FedpressError) -> Awaitable[Any]:
    """End a call with the status, the fault's name and the message."""
    if not isinstance(error, Refused):
        _LOG.error("internal error: %s", error)
        error = Refused("FAULT_UNSPECIFIED", str(error))
    trailing = [(FAULT_KEY, error.fault)]
    if error.retry_after is not None:
        trailing.append((RETRY_KEY, f"{error.retry_after:.1f}"))
    return context.abort(STATUS[error.fault], str(error), tuple(trailing))
