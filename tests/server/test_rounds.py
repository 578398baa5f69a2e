"""What is written down of a round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease
from fedpress.server.rounds import Cover, round_record
from fedpress.server.store import Client, Store, Traffic

SPEC = Spec.of({"w": np.zeros((2, 3), np.float32)})


def record(directory: Path, updates: dict[str, tuple[int, float, int]], round_: int, least: int = 1) -> Any:
    """Of a round in which these clients' updates counted: the round they were leased in, an accuracy, held-out
    examples. The nth trained on n examples, with a loss of n."""
    store = Store(directory / "store.sqlite", durable=False)
    for n, (name, (leased, accuracy, held_out)) in enumerate(updates.items(), 1):
        store.clients.add(Client(name, name, "", ""))
        store.add_leases([Lease(f"t{name}", name, leased)], {f"t{name}": Choice("int8", "")})
        report = pb.Report(examples=n, loss=n, accuracy=accuracy, held_out=held_out)
        store.end_lease(f"t{name}", round_, Fate.COUNTED, Traffic(100, 200, 1), report.SerializeToString())
    made = round_record(store, round_, SPEC, 1.0, 1.0, Cover(least))
    store.close()
    return made


def test_means_are_over_examples_spreads_over_clients_and_bytes_over_all(tmp_path: Path) -> None:
    made = record(tmp_path, {"a": (1, 1.0, 10), "b": (1, 0.5, 30), "c": (1, 0.25, 0)}, 1)
    assert made["client_metrics"] == {"accuracy": 0.625}
    assert made["client_accuracy"] == {"mean": 0.75, "deviation": 0.25, "worst_decile": 0.5, "clients": 2}
    assert made["train_loss"] == pytest.approx((1 + 4 + 9) / 6)
    assert (made["bytes_up"], made["bytes_up_uncompressed"]) == (300, 3 * SPEC.nbytes)
    assert (made["bytes_down"], made["bytes_down_uncompressed"]) == (600, 3 * SPEC.nbytes)


def test_what_comes_late_says_nothing_of_the_model_that_arrived(tmp_path: Path) -> None:
    made = record(tmp_path, {"new": (3, 0.5, 10), "late": (2, 1.0, 10)}, 3)
    assert made["client_metrics"] == {"accuracy": 0.5}
    assert made["client_accuracy"]["clients"] == 2
    assert made["updates"] == 2


def test_a_mean_of_fewer_than_the_least_is_not_written_down_whoever_came_late(tmp_path: Path) -> None:
    updates = {f"late{i}": (2, 1.0, 10) for i in range(3)} | {"new": (3, 0.5, 10)}
    assert record(tmp_path, updates, 3, least=2)["client_metrics"] == {}


@pytest.mark.parametrize("ends", [(Fate.COUNTED, Fate.DECLINED), (Fate.DECLINED, Fate.COUNTED)])
def test_of_a_client_with_two_leases_in_a_round_the_one_that_counted_says_what_it_is(
    tmp_path: Path, ends: tuple[Fate, Fate]
) -> None:
    store = Store(tmp_path / "store.sqlite", durable=False)
    store.clients.add(Client("a", "a", "", ""))
    for i, fate in enumerate(ends):
        store.add_leases([Lease(f"t{i}", "a", 1)], {f"t{i}": Choice("int8", "")})
        said = pb.Report(examples=7, accuracy=0.5, held_out=4).SerializeToString() if fate is Fate.COUNTED else b""
        store.end_lease(f"t{i}", 1, fate, Traffic(100, 200, 1), said)
    record = round_record(store, 1, SPEC, 1.0, 1.0)
    store.close()
    client = record["clients"]["a"]
    assert (client["fate"], client["examples"], client["bytes_up"]) == ("counted", 7, 200)
    assert record["client_accuracy"]["clients"] == 1
