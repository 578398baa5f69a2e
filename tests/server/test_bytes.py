"""The framework's own count of bytes against what a proxy saw on the socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.vault import Vault
from fedpress.simulations.records import read_rounds


class Proxy:
    """Passes one port's connections on to another, and counts what it passes."""

    def __init__(self, port: int) -> None:
        self.up = self.down = self.port = 0
        self._target = port
        self._open: list[asyncio.Task[None]] = []
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
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


@pytest.mark.parametrize(
    ("parameters", "codec"), [(20_000, "int8"), (100_000, "ef+topk:0.1+int8"), (100_000, "raw")], ids=str
)
def test_counts_match_what_a_proxy_saw(fleet: Callable[..., Any], tmp_path: Path, parameters: int, codec: str) -> None:
    server = fleet("clients.count=1", "run.rounds=3", f"upload.codec={codec}", parameters=parameters)
    with Proxy(server.service.port) as proxy:
        link = GrpcLink(f"127.0.0.1:{proxy.port}")
        with Vault(tmp_path / "vault", durable=False) as vault:
            Device(link, vault, server.trainer, "device", server.plan.task.name).run()
        link.close()
        server.closed(3)
        rounds = read_rounds(server.plan.directory)
        up, down = sum(r.bytes_up for r in rounds), sum(r.bytes_down for r in rounds)
        assert min(up, down) / 3 > 10_000
        for payload, messages, seen in ((up, link.traffic.sent, proxy.up), (down, link.traffic.received, proxy.down)):
            assert payload <= messages <= seen
            assert seen < 1.03 * messages
        assert server.federation.meter.wire == (link.traffic.sent, link.traffic.received)
