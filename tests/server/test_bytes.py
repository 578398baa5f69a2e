"""The framework's own count of bytes against what a proxy saw on the socket."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fedpress.client import actions
from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.vault import Vault
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import metrics_of, put_metrics
from fedpress.simulations.benchmarks.proxy import Proxy
from fedpress.simulations.records import read_rounds


@pytest.mark.parametrize(
    ("parameters", "codec"), [(20_000, "int8"), (100_000, "ef+topk:0.1+int8"), (100_000, "raw")], ids=str
)
def test_counts_match_what_a_proxy_saw(fleet: Callable[..., Any], tmp_path: Path, parameters: int, codec: str) -> None:
    given = ("clients.count=1", "run.rounds=3", f"upload.codec={codec}", "download.codec=int8")
    server = fleet(*given, parameters=parameters)
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


def test_an_ordinary_round_costs_few_bytes_beside_its_payloads(fleet: Callable[..., Any], tmp_path: Path) -> None:
    """What GetWork, its Ticket and a Push cost, the identity and gRPC's frames included; small payloads ride along."""
    server = fleet("clients.count=1", "run.rounds=4", "upload.codec=ef+topk:0.01+int8", "evaluate.clients_every=1")
    link = GrpcLink(server.address)
    marks: list[tuple[int, int]] = []
    with Vault(tmp_path / "vault", durable=False) as vault:
        device = Device(link, vault, server.trainer, "device", server.plan.task.name)
        while device.stopped is None:
            if isinstance(device.step(), actions.Commit):
                marks.append((link.traffic.sent, link.traffic.received))
    link.close()
    for (before, after), record in zip(pairwise(marks), server.closed(4)[1:4], strict=False):
        up, down = (b - a for a, b in zip(before, after, strict=True))
        assert min(record["bytes_up"], record["bytes_down"]) > 0
        assert up - record["bytes_up"] < 140
        assert down - record["bytes_down"] < 170


def test_a_report_with_all_its_numbers_is_small() -> None:
    report = pb.Report(examples=60_000, steps=1_000, loss=0.3, train_seconds=9.5, encode_seconds=0.1, epsilon=1.5)
    report.held_out = 10_000
    put_metrics(report, {"accuracy": 0.97, "loss": 0.1})
    name = bytes(8)
    part = pb.PushPart(header=pb.PushHeader(ticket=name, base=name, size=125, checksum=name, report=report, memory=1))
    assert part.ByteSize() < 90
    assert pb.WorkRequest(held=name, link=pb.LinkRates(up=1e5, down=1e6), wait_seconds=20).ByteSize() < 30
    put_metrics(report, {"f1": 0.5, "mad": float("nan"), "madder": 1e300})
    assert metrics_of(report) == pytest.approx({"accuracy": 0.97, "loss": 0.1, "f1": 0.5})
