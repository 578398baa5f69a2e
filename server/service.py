"""The gRPC skin on a ``Federation``: its calls, threads and waiting, and nothing else; ``endpoint`` has the sockets.

The federation lives on one worker thread (SQLite, decoding and folding run there, off the event loop); evaluation has a
thread of its own. Long polls wait on an event that is set whenever something changed. Uploads are read a few at a
time, so that sixty-four devices pushing at once cost the memory of a few chunks: the others wait in HTTP/2 flow
control.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import grpc

from fedpress.errors import FedpressError, Refused
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import IDENTITY_KEY, SMALL_BYTES
from fedpress.sections import Server as ServerSection
from fedpress.server import endpoint
from fedpress.server.endpoint import Context, Method
from fedpress.server.federation import Federation

_TICK_S: Final = 0.25
_HEADER_S: Final = 10.0  # an upload that has said nothing for so long is refused
_TURN_S: Final = 30.0  # an upload that takes longer is suspended, and resumes behind those that wait

T = TypeVar("T")
Evaluator = Callable[[Tensors], Mapping[str, float]]


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
        methods: Mapping[str, Method] = {
            "Enrol": self._enrol,
            "GetWork": self._get_work,
            "Fetch": self._fetch,
            "Offset": self._offset,
            "Push": self._push,
            "Decline": self._decline,
            "GetRelease": self._get_release,
        }
        self._server = endpoint.server(self._settings.chunk_bytes)
        self._server.add_generic_rpc_handlers((endpoint.handlers(methods, self.federation.meter),))
        self.port = endpoint.listen(self._server, self._settings)
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


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Until ``event`` is set or the time is over. (3.11's ``wait_for`` would lose a cancellation between the two.)"""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
