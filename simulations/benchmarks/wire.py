"""The framework's own byte counts against a counting proxy: ``python -m fedpress.simulations.benchmarks.wire``.

One device does three rounds through the proxy for each row. *payload* is what ``bytes_up``, ``bytes_down`` report,
*messages* what ``wire_up``, ``wire_down`` report, *socket* what the proxy passed on, all in bytes and over all rounds.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.vault import Vault
from fedpress.params import Model
from fedpress.plan import load
from fedpress.server.service import Service
from fedpress.simulations.benchmarks.proxy import Proxy
from fedpress.simulations.host import Host

ROWS: Final = (
    (10_500, "ef+topk:0.002+int8"),
    (10_500, "int8"),
    (50_000, "int8"),
    (500_000, "ef+topk:0.02+int8"),
    (1_700_000, "raw"),
)
_ROUNDS: Final = 3


class Bytes(NamedTuple):
    """One direction's count, by three witnesses."""

    payload: int
    messages: int
    socket: int

    @property
    def unseen(self) -> str:
        """The share of the socket's bytes that the framework's own count of messages leaves out."""
        return f"{100 * (self.socket / self.messages - 1):.2f} %"


def through_proxy(parameters: int, codec: str) -> tuple[Bytes, Bytes]:
    """Up and down, over all rounds."""
    trainer = IdleTrainer.of_size(parameters)
    with tempfile.TemporaryDirectory(prefix="fedpress-bench-") as place:
        settings = f"run.out={place} run.rounds={_ROUNDS} clients.count=1 train.trainer=idle upload.codec={codec}"
        quiet = "evaluate.server_every=0 evaluate.clients_every=0 run.checkpoint_every=0"
        socket: list[int] = []

        def device(port: int) -> None:
            with Proxy(port) as proxy, Vault(Path(place) / "vault", durable=False) as vault:
                link = GrpcLink(f"127.0.0.1:{proxy.port}")
                Device(link, vault, trainer, "device", "idle").run()
                link.close()
                socket.extend((proxy.up, proxy.down))

        async def ready(service: Service) -> None:
            await asyncio.to_thread(device, service.port)

        with Host(load(None, f"{settings} {quiet}".split()), Model.of(trainer.initial(0))) as host:
            asyncio.run(host.serve(None, ready))
            rounds, messages = host.rounds(), host.federation.meter.wire
    payload = sum(r.bytes_up for r in rounds), sum(r.bytes_down for r in rounds)
    up, down = (Bytes(*counts) for counts in zip(payload, messages, socket, strict=True))
    return up, down


def main() -> None:
    """Measure and print."""
    table = Table("parameters", "upload codec", "way", "payload", "messages", "socket", "unseen")
    for parameters, codec in ROWS:
        for way, count in zip(("up", "down"), through_proxy(parameters, codec), strict=True):
            table.add_row(str(parameters), codec, way, *(str(n) for n in count), count.unseen)
    Console().print(table)


if __name__ == "__main__":
    main()
