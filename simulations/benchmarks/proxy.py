"""A TCP proxy on loopback that counts bytes: the witness of what a run really sent. In a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from fedpress.errors import FedpressError


class Proxy:
    """Passes connections on to ``port`` of this machine and counts what passes, ``up`` and ``down``. A context manager.

    ``port``: where it listens itself.
    """

    def __init__(self, port: int) -> None:
        self.up = self.down = self.port = 0
        self._target = port
        self._open: list[asyncio.Task[None]] = []
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise FedpressError("The counting proxy did not start.")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await asyncio.gather(*self._open)

    async def _connect(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far, far_out = await asyncio.open_connection("127.0.0.1", self._target)
        for source, target, way in ((near, far_out, "up"), (far, near_out, "down")):
            self._open.append(asyncio.create_task(self._pump(source, target, way)))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: str) -> None:
        while data := await source.read(1 << 16):
            setattr(self, way, getattr(self, way) + len(data))
            target.write(data)
            await target.drain()
        target.close()
        await target.wait_closed()
