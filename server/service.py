"""The gRPC skin on a ``Federation``: sockets, threads and waiting, and nothing else.

The federation lives on one worker thread (SQLite, decoding and folding run there, off the event loop); evaluation has a
thread of its own. Long polls wait on an event that is set whenever something changed. Uploads are read a few at a
time, so that sixty-four devices pushing at once cost the memory of a few chunks: the others wait in HTTP/2 flow
control.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from fedpress.errors import FedpressError, Refused
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import (
    CALLS,
    FAULT_KEY,
    FRAME_BYTES,
    IDENTITY_KEY,
    RETRY_KEY,
    SERVICE,
    SMALL_BYTES,
    STATUS,
    Call,
    head_bytes,
)
from fedpress.sections import Server as ServerSection
from fedpress.server.federation import Federation

_LOG: Final = logging.getLogger("fedpress.server")
_TICK_S: Final = 0.25
_SLACK: Final = 1 << 14  # what an upload's chunk may weigh besides its data
_HEADER_S: Final = 10.0  # an upload that has said nothing for so long is refused
_TURN_S: Final = 30.0  # an upload that takes longer is suspended, and resumes behind those that wait
_WINDOW: Final = 1 << 16  # bytes a connection may send before they are asked for, thus at most per round trip
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1", "[::1]")

T = TypeVar("T")
Evaluator = Callable[[Tensors], Mapping[str, float]]
Handler = Callable[..., Any]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Service:
    """Serve one federation. ``evaluate`` measures a model on the server's data; None: nobody does."""

    def __init__(self, federation: Federation, settings: ServerSection, evaluate: Evaluator | None = None) -> None:
        self.federation = federation
        self.port = 0
        self._settings = settings
        self._evaluate = evaluate
        self._core = ThreadPoolExecutor(1, thread_name_prefix="fedpress-core")
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="fedpress-evaluate")
        self._changed = asyncio.Event()
        self._due = asyncio.Event()
        self._uploads = asyncio.Semaphore(settings.max_streams)
        self._server: grpc.aio.Server | None = None
        self._driver: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Listen; the port. Raises FedpressError if it is taken, or if TLS is missing where it must not be."""
        limit = self._settings.chunk_bytes + _SLACK
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.http2.bdp_probe", 0),  # or gRPC widens the window until whole updates fit into it
                ("grpc.http2.lookahead_bytes", _WINDOW),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.port = self._listen(self._server)
        await self._server.start()
        self._driver = asyncio.create_task(self._drive())
        return self.port

    async def finished(self) -> str:
        """Wait until the run is over and its last model is measured; why it ended."""
        if self._driver is None:
            raise FedpressError("The service was not started.")
        await self._driver
        return self.federation.finished

    async def stop(self, grace: float = 0.5) -> None:
        """Stop serving. The federation's state is in its store; nothing is lost."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)  # ``finished`` raised what there was to raise
        self._changed.set()
        if self._server is not None:
            await self._server.stop(grace)
        self._core.shutdown(wait=True)
        self._measuring.shutdown(wait=True)

    def _listen(self, server: grpc.aio.Server) -> int:
        s = self._settings
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

    # -- the driver -----------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """Close rounds, let deadlines pass, measure models, until the run is over."""
        measuring: asyncio.Task[None] | None = None
        told = 0
        while True:
            if not await self._on_core(self.federation.advance):
                await self._on_core(self.federation.tick)
                if self.federation.finished and not self.federation.pending and (measuring is None or measuring.done()):
                    break
                await _within(_TICK_S, self._due)
            self._due.clear()
            if measuring is not None and measuring.done():
                await measuring  # raises what went wrong
                measuring = None
            if told != self.federation.stirred:
                told = self.federation.stirred
                self._notify()
            if self.federation.pending and measuring is None:
                measuring = asyncio.create_task(self._measure())
            elif len(self.federation.pending) > 1 and measuring is not None:
                await measuring  # evaluation is slower than rounds: let it catch up, memory stays bounded
        self._notify()  # that the run is over
        if measuring is not None:
            await measuring

    async def _measure(self) -> None:
        pending = self.federation.pending.popleft()
        loop = asyncio.get_running_loop()
        metrics: Mapping[str, float] = {}
        if self._evaluate is not None:
            metrics = await loop.run_in_executor(self._measuring, self._evaluate, pending.model)
        await self._on_core(partial(self.federation.evaluated, pending, metrics))
        self._due.set()

    async def _on_core(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._core, work)

    def _notify(self) -> None:
        """Wake every long poll."""
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the calls ------------------------------------------------------------------------------------------------

    async def _enrol(self, request: pb.EnrolRequest, _: Context) -> pb.EnrolReply:
        reply = await self._on_core(partial(self.federation.enrol, request))
        self._due.set()
        return reply

    async def _get_work(self, request: pb.WorkRequest, context: Context) -> pb.WorkReply:
        client = await self._caller(context)
        loop = asyncio.get_running_loop()
        asked = request.wait_seconds if request.wait_seconds > 0 else 0.0  # NaN is no time at all
        until = loop.time() + min(asked, self._settings.long_poll_s)
        while True:
            changed = self._changed
            reply = await self._on_core(partial(self.federation.get_work, client, request))
            left = until - loop.time()
            if reply.WhichOneof("answer") != "wait" or left <= 0:
                return reply
            await _within(left, changed)

    async def _fetch(self, request: pb.FetchRequest, context: Context) -> AsyncIterator[pb.Chunk]:
        client = await self._caller(context)
        data = await self._on_core(partial(self.federation.blob, request.hash, request.offset))
        step = self._settings.chunk_bytes
        for at in range(0, len(data), step):
            chunk = bytes(data[at : at + step])
            self.federation.meter.down(client, len(chunk))
            yield pb.Chunk(data=chunk)

    async def _offset(self, request: pb.OffsetRequest, context: Context) -> pb.OffsetReply:
        client = await self._caller(context)
        return await self._on_core(partial(self.federation.offset, client, request.ticket))

    async def _push(self, parts: AsyncIterator[pb.PushPart], context: Context) -> pb.PushReply:
        client = await self._caller(context)
        try:  # no slot is held yet: whoever is silent, or has no ticket, costs nobody else a turn
            async with asyncio.timeout(_HEADER_S):
                first = await anext(parts, None)
        except TimeoutError as error:
            raise Refused("FAULT_MALFORMED", f"Expected an upload's header within {_HEADER_S:g} seconds.") from error
        if first is None or not first.HasField("header") or len(first.data) > SMALL_BYTES:
            raise Refused("FAULT_MALFORMED", f"Expected an upload's header first, with at most {SMALL_BYTES} bytes.")
        upload = await self._on_core(partial(self.federation.push, client, first.header))
        if isinstance(upload, pb.PushReply):
            return upload
        try:
            async with self._uploads, asyncio.timeout(_TURN_S):
                if first.data:
                    await self._on_core(partial(self.federation.append, client, upload, first.data))
                async for part in parts:
                    if part.HasField("header") or not part.data:
                        raise Refused("FAULT_MALFORMED", "Expected only data after an upload's header.")
                    await self._on_core(partial(self.federation.append, client, upload, part.data))
                while self.federation.full:  # rounds close at the driver's pace, which waits for evaluation
                    await _within(_TICK_S, self._changed)
                reply = await self._on_core(partial(self.federation.finish, client, upload))
        except BaseException as error:
            await asyncio.shield(self._on_core(partial(self.federation.suspend, upload)))
            if isinstance(error, TimeoutError):
                raise Refused("FAULT_BUSY", "Others wait to upload: resume behind them.", retry_after=0.1) from error
            raise
        self._due.set()
        return reply

    async def _decline(self, request: pb.DeclineRequest, context: Context) -> pb.DeclineReply:
        client = await self._caller(context)
        reply = await self._on_core(partial(self.federation.decline, client, request.ticket, request.reason))
        self._due.set()
        return reply

    async def _get_release(self, request: pb.ReleaseRequest, context: Context) -> pb.Release:
        await self._caller(context)
        return await self._on_core(partial(self.federation.release, request.device_class))

    async def _caller(self, context: Context) -> str:
        key = dict(context.invocation_metadata() or ()).get(IDENTITY_KEY)
        return await self._on_core(partial(self.federation.authenticate, key if isinstance(key, bytes) else b""))

    # -- from messages to bytes -----------------------------------------------------------------------------------

    def _handlers(self) -> Any:
        kinds: Mapping[tuple[bool, bool], Callable[..., Any]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }
        methods: Mapping[str, Handler] = {
            "Enrol": self._enrol,
            "GetWork": self._get_work,
            "Fetch": self._fetch,
            "Offset": self._offset,
            "Push": self._push,
            "Decline": self._decline,
            "GetRelease": self._get_release,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: kinds[call.request_streams, call.reply_streams](
                    self._stream(methods[name]) if call.reply_streams else self._single(methods[name]),
                    request_deserializer=partial(self._received, call),
                    response_serializer=self._sent,
                )
                for name, call in CALLS.items()
            },
        )

    def _single(self, method: Handler) -> Handler:
        async def answer(request: Any, context: Context) -> Any:
            self._count_head(context)
            try:
                return await method(request, context)
            except FedpressError as error:
                await _abort(context, error)

        return answer

    def _stream(self, method: Handler) -> Handler:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            self._count_head(context)
            try:
                async for message in method(request, context):
                    yield message
            except FedpressError as error:
                await _abort(context, error)

        return answer

    def _count_head(self, context: Context) -> None:
        self.federation.meter.message(up=head_bytes(context.invocation_metadata() or ()))

    def _received(self, call: Call, data: bytes) -> Any:
        self.federation.meter.message(up=len(data) + FRAME_BYTES)
        return call.parse_request(data)

    def _sent(self, message: Any) -> bytes:
        data: bytes = message.SerializeToString()
        self.federation.meter.message(down=len(data) + FRAME_BYTES)
        return data


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Until ``event`` is set or the time is over. (3.11's ``wait_for`` would lose a cancellation between the two.)"""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _abort(context: Context, error: FedpressError) -> Awaitable[Any]:
    """End a call with the status, the fault's name and the message."""
    if not isinstance(error, Refused):
        _LOG.error("internal error: %s", error)
        error = Refused("FAULT_UNSPECIFIED", str(error))
    trailing = [(FAULT_KEY, error.fault)]
    if error.retry_after is not None:
        trailing.append((RETRY_KEY, f"{error.retry_after:.1f}"))
    return context.abort(STATUS[error.fault], str(error), tuple(trailing))
