"""Who takes part, known by a key alone; and what each device said last that it can do, kept for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpress.compression.layout import kind_number
from fedpress.errors import Refused
from fedpress.params import Kind, Spec, TensorSpec
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server.enrolment import Enrolment
from fedpress.server.store import Store

SPEC = Spec((TensorSpec("w", (2, 3)),))
KEY = bytes(range(16))
ABLE = pb.Capabilities(codecs=["raw", "topk"], trainers=["idle"], cores=4, link=pb.LinkRates(up=1000))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.sqlite", durable=False)
    yield made
    made.close()


def enrolment(store: Store) -> Enrolment:
    return Enrolment(store, {"raw"}, "idle", SPEC)


def request(**changed: Any) -> pb.EnrolRequest:
    return pb.EnrolRequest(**{"protocol": PROTOCOL, "name": "pi", "key": KEY, "capabilities": ABLE, **changed})


def test_a_key_is_who_calls_also_after_a_restart(store: Store) -> None:
    made = enrolment(store)
    client, key = made.admit(request())
    other, drawn = made.admit(request(name="phone", key=b"too short"))
    assert (key, len(drawn)) == (KEY, 16)
    for place in (made, enrolment(store)):
        assert place.authenticate(KEY) == client.id
        assert place.authenticate(drawn) == other.id
        assert place.admit(request(name="renamed")) == (client, KEY)
        for wrong in (b"", KEY[:8], bytes(16), KEY + b"x"):
            with pytest.raises(Refused, match="does not know"):
                place.authenticate(wrong)
        with pytest.raises(Refused, match="belongs to another device"):
            place.admit(request(key=bytes(16)))


def test_what_a_device_said_last_is_kept_and_its_link_renewed(store: Store) -> None:
    made = enrolment(store)
    client, _ = made.admit(request())
    assert made.capabilities(client.id) == ABLE
    made.measured(client.id, pb.LinkRates(up=300, down=5000))
    said = enrolment(store).capabilities(client.id)
    assert (said.cores, said.link.up, said.link.down) == (4, 300, 5000)
    made.admit(request(capabilities=pb.Capabilities(codecs=["raw"], trainers=["idle"], cores=8)))
    said = enrolment(store).capabilities(client.id)
    assert (said.cores, list(said.codecs), said.link.up) == (8, ["raw"], 0)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0, 1e30])
def test_rates_that_are_none_are_refused_and_change_nothing(store: Store, rate: float) -> None:
    made = enrolment(store)
    client, _ = made.admit(request())
    with pytest.raises(Refused) as refused:
        made.measured(client.id, pb.LinkRates(up=rate))
    assert refused.value.fault == "FAULT_MALFORMED"
    assert enrolment(store).capabilities(client.id) == ABLE


@pytest.mark.parametrize(
    "said",
    [
        pb.Capabilities(codecs=[f"codec{i}" for i in range(1000)]),
        pb.Capabilities(codecs=["x" * 1000]),
        pb.Capabilities(device_class="\x1b[2J"),
        pb.Capabilities(link=pb.LinkRates(down=float("nan"))),
    ],
    ids=["many", "long", "escape", "nan"],
)
def test_capabilities_beyond_all_measure_are_refused(store: Store, said: pb.Capabilities) -> None:
    said.codecs.append("raw")
    said.trainers.append("idle")
    with pytest.raises(Refused) as refused:
        enrolment(store).admit(request(capabilities=said))
    assert refused.value.fault == "FAULT_MALFORMED"


def test_a_device_with_another_model_hears_which_tensor_is_of_another_kind(store: Store) -> None:
    def spec(*kinds: Kind) -> Spec:
        return Spec(tuple(TensorSpec(n, (2,), kind=kind) for n, kind in zip("wbv", kinds, strict=True)))

    def enrol(theirs: Spec) -> None:
        kinds = [kind_number(t.kind) for t in theirs] if theirs.kinds else []
        made.admit(request(spec_hash=bytes.fromhex(theirs.hash), kinds=kinds))

    made = Enrolment(store, {"raw"}, "idle", spec("weight", "statistic", "frozen"))
    enrol(spec("weight", "statistic", "frozen"))
    for theirs, named in (
        (spec("weight", "statistic", "weight"), "tensor 'v' as a frozen tensor as in the run, got a weight"),
        (spec("weight", "weight", "weight"), "tensor 'b' as a statistic as in the run, got a weight"),
    ):
        with pytest.raises(Refused, match=named) as refused:
            enrol(theirs)
        assert refused.value.fault == "FAULT_INCAPABLE"
    with pytest.raises(Refused, match="not the one this run trains"):
        enrol(SPEC)
    with pytest.raises(Refused, match="not the one this run trains"):
        made.admit(request(spec_hash=bytes(32), kinds=[7, 7, 7]))
