from __future__ import annotations

import datetime
import hashlib
import ipaddress
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedpress.client.grpc_link import MAX_MESSAGE, GrpcLink
from fedpress.client.link import SMALLEST_MEASURED, Rate
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.errors import PlanError, Refused, ServerGone
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL, head_bytes

Toys = Callable[..., Any]


@pytest.fixture
def toy(toys: Toys) -> Any:
    return toys(IdleTrainer.of_size(20_000).initial(0))


def enrolled(toy: Any, **options: Any) -> GrpcLink:
    link = GrpcLink(f"localhost:{toy.port}" if options else f"127.0.0.1:{toy.port}", **options)
    reply = link.enrol(pb.EnrolRequest(protocol=PROTOCOL, name="dora"))
    link.authenticate(reply.key)
    return link


def test_both_sides_count_the_same_bytes(toy: Any) -> None:
    link = enrolled(toy)
    ticket = link.get_work(pb.WorkRequest()).ticket
    blob = ticket.recipe[0]
    data = b"".join(link.fetch(blob.hash, 0))
    assert len(data) == blob.size
    assert b"".join(link.fetch(blob.hash, 777)) == data[777:]
    link.decline(ticket.id, "no")
    link.close()
    heads = 4 * head_bytes(link._identity)
    assert heads == 4 * (len("key-bin") + 16)
    assert (link.traffic.sent, link.traffic.received) == (toy.received + heads, toy.sent)
    assert link.traffic.received > 2 * blob.size - 777
    assert link.traffic.down.bytes_per_s > 0
    assert link.traffic.up.bytes_per_s == 0, "nothing large was sent"


def test_an_upload_goes_in_chunks_of_the_servers_size_from_the_offset_on(toy: Any) -> None:
    link = enrolled(toy)
    payload = bytes(range(256)) * 40
    toy.broken["Push"] = [(2, "FAULT_BUSY")]
    with pytest.raises(Refused) as refused:
        link.push(pb.PushHeader(ticket=b"ticket-1", size=len(payload)), payload)
    assert (refused.value.fault, refused.value.retry_after) == ("FAULT_BUSY", 0.5)
    assert bytes(toy._inbox) == payload[: 2 * toy.chunk]
    toy.broken["Push"] = [(7, "FAULT_BUSY")]
    with pytest.raises(Refused):
        link.push(pb.PushHeader(ticket=b"ticket-1", size=len(payload), offset=2 * toy.chunk), payload)
    assert bytes(toy._inbox) == payload[: 9 * toy.chunk], "seven more, without a gap or a repetition"
    link.close()


@pytest.mark.parametrize("fault", [f for f in pb.Fault.keys() if f != "FAULT_UNSPECIFIED"])  # noqa: SIM118
def test_every_fault_arrives_by_its_name(toy: Any, fault: str) -> None:
    link = enrolled(toy)
    toy.broken["GetWork"] = [fault]
    with pytest.raises(Refused, match="as the test wishes") as refused:
        link.get_work(pb.WorkRequest())
    assert not isinstance(refused.value, ServerGone)
    assert refused.value.fault == fault
    link.close()


@pytest.mark.parametrize(
    ("code", "kind", "fault"),
    [
        (grpc.StatusCode.UNAVAILABLE, ServerGone, "FAULT_UNSPECIFIED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServerGone, "FAULT_UNSPECIFIED"),
        (grpc.StatusCode.CANCELLED, ServerGone, "FAULT_UNSPECIFIED"),
        (grpc.StatusCode.UNIMPLEMENTED, Refused, "FAULT_PROTOCOL"),
        (grpc.StatusCode.INTERNAL, Refused, "FAULT_UNSPECIFIED"),
    ],
)
def test_a_status_without_a_fault(toy: Any, code: grpc.StatusCode, kind: type[Refused], fault: str) -> None:
    link = enrolled(toy)
    toy.broken["GetWork"] = [code]
    with pytest.raises(Refused) as refused:
        link.get_work(pb.WorkRequest())
    assert type(refused.value) is kind
    assert refused.value.fault == fault
    link.close()


def test_a_stream_that_breaks_gives_what_came_before_it_broke(toy: Any) -> None:
    link = enrolled(toy)
    blob = link.get_work(pb.WorkRequest()).ticket.recipe[0]
    toy.broken["Fetch"] = [(3, grpc.StatusCode.UNAVAILABLE)]
    got = bytearray()

    def read() -> None:
        for chunk in link.fetch(blob.hash, 0):
            got.extend(chunk)

    with pytest.raises(ServerGone):
        read()
    assert len(got) == 3 * toy.chunk
    link.close()


def test_a_message_beyond_the_bound_is_not_read(toy: Any) -> None:
    link = enrolled(toy)
    toy._steps[0].payload = bytes(MAX_MESSAGE + 1)
    toy.chunk = MAX_MESSAGE + 1
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        list(link.fetch(hashlib.sha256(toy._steps[0].payload).digest(), 0))
    link.close()


def test_nobody_there_and_a_closed_link_are_both_a_server_that_is_gone(toy: Any) -> None:
    link = enrolled(toy)
    toy.stop()
    with pytest.raises(ServerGone, match=f"127.0.0.1:{toy.port}"):
        link.get_work(pb.WorkRequest())
    link.close()
    with pytest.raises(ServerGone, match="closed"):
        link.get_work(pb.WorkRequest())
    with pytest.raises(ServerGone, match="closed"):
        list(link.fetch(b"x", 0))


def test_closing_ends_a_call_in_flight(toy: Any) -> None:
    link = enrolled(toy)
    asked, let_go = threading.Event(), threading.Event()
    honest = toy._caller

    def hang(context: Any) -> None:
        asked.set()
        let_go.wait(10)
        honest(context)

    toy._caller = hang
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            link.get_work(pb.WorkRequest(wait_seconds=10))
        except ServerGone as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    link.close()
    thread.join(10)
    let_go.set()
    assert len(ended) == 1


@pytest.mark.parametrize("address", ["10.0.0.7:5000", "fl.example.org:443", "[2001:db8::1]:5000"])
def test_plaintext_to_another_machine_must_be_asked_for(address: str) -> None:
    with pytest.raises(PlanError, match="Expected TLS"):
        GrpcLink(address)
    GrpcLink(address, insecure=True).close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.8.8:1"])
def test_this_machine_needs_no_certificate(address: str) -> None:
    link = GrpcLink(address)
    assert ":" not in link.server or link.server == "::1"
    link.close()


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":80", "host:port", ""])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(PlanError, match="as host:port"):
        GrpcLink(address)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.pem"):
        GrpcLink("localhost:1", root_certs=tmp_path / "none.pem")


def self_signed() -> tuple[bytes, bytes]:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def test_tls_with_the_servers_certificate_and_with_no_other(toy: Any, tmp_path: Path) -> None:
    (cert, key), (other, _) = self_signed(), self_signed()
    (tmp_path / "server.pem").write_bytes(cert)
    (tmp_path / "other.pem").write_bytes(other)
    toy.stop()
    toy.port = 0
    toy.start(credentials=grpc.ssl_server_credentials([(key, cert)]))
    link = enrolled(toy, root_certs=tmp_path / "server.pem")
    assert link.get_work(pb.WorkRequest()).ticket.id == b"ticket-1"
    link.close()
    with pytest.raises(ServerGone):
        enrolled(toy, root_certs=tmp_path / "other.pem")
    with pytest.raises(ServerGone):
        enrolled(toy)


def test_a_rate_is_a_running_mean_of_real_transfers() -> None:
    rate = Rate()
    rate.measured(SMALLEST_MEASURED - 1, 1.0)
    rate.measured(10_000, 0.0)
    assert rate.bytes_per_s == 0.0
    rate.measured(10_000, 1.0)
    assert rate.bytes_per_s == 10_000
    rate.measured(20_000, 1.0)
    assert rate.bytes_per_s == pytest.approx(13_000)
