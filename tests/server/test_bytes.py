"""The framework's own count of bytes against what a proxy saw on the socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.vault import Vault
from fedpress.simulations.benchmarks.proxy import Proxy
from fedpress.simulations.records import read_rounds


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
