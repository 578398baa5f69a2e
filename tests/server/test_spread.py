"""The spread over clients by hand, and what a round's record says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease
from fedpress.server.rounds import round_record
from fedpress.server.spread import Spread, spread
from fedpress.server.store import Client, Store, Traffic

SPEC = Spec.of({"w": np.zeros(1, np.float32)})


def test_by_hand() -> None:
    assert spread([]) is None
    assert spread([0.25]) == Spread(0.25, 0.0, 0.25, 1)
    assert spread([1.0, 0.0]) == Spread(0.5, 0.5, 0.0, 2)
    twenty = [0.0, 0.5, *[1.0] * 18]
    found = spread(twenty[::-1])
    assert found is not None
    assert found.worst_decile == 0.25  # the mean of 0 and 0.5: two of twenty
    assert found.mean == pytest.approx(0.925)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.randoms())
def test_it_lies_between_the_worst_and_the_mean_whatever_the_order(values: list[float], random: object) -> None:
    found = spread(values)
    assert found is not None
    assert min(values) <= found.worst_decile <= found.mean + 1e-12
    random.shuffle(values)  # type: ignore[attr-defined]
    assert spread(values) == found


def test_a_record_counts_every_client_once_and_those_without_held_out_data_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite", durable=False)
    for name, accuracy, held_out in (("a", 1.0, 10), ("b", 0.5, 30), ("c", None, 0)):
        store.add_client(Client(name, name, "", ""))
        store.add_leases([Lease(f"t{name}", name, 1)], {f"t{name}": Choice("int8", "")})
        report = pb.Report(examples=1, accuracy=accuracy, held_out=held_out)
        store.end_lease(f"t{name}", 1, Fate.COUNTED, Traffic(100, 200, 1), report.SerializeToString())
    record = round_record(store, 1, SPEC, 1.0, 1.0)
    store.close()
    assert record["client_metrics"] == {"accuracy": 0.625}  # by examples
    assert record["client_accuracy"] == {"mean": 0.75, "deviation": 0.25, "worst_decile": 0.5, "clients": 2}
