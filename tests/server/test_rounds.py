"""What is written down of a round."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpress.compression.codec import Loss, energy
from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.aggregate import Gathering
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease
from fedpress.server.rounds import Cover, Outcome, diverged, evaluation_record, fidelity, round_record, with_metrics
from fedpress.server.store import Client, Store, Traffic
from fedpress.server.strategies import Share

SPEC = Spec.of({"w": np.zeros((2, 3), np.float32)})
TRAFFIC = Traffic(100, 200, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.sqlite", durable=False)
    yield made
    made.close()


def ended(
    store: Store,
    lease: Lease,
    report: pb.Report,
    round_: int = 1,
    fate: Fate = Fate.COUNTED,
    traffic: Traffic = TRAFFIC,
) -> None:
    """A lease of a client ended in a round."""
    if lease.client not in {client.id for client in store.clients.all()}:
        store.clients.add(Client(lease.client, lease.client, "", ""))
    store.add_leases([lease], {lease.id: Choice("int8", "")})
    store.end_lease(lease.id, round_, fate, traffic, report.SerializeToString())


def test_means_are_over_examples_spreads_over_clients_and_bytes_over_all(store: Store) -> None:
    ended(store, Lease("ta", "a", 1), pb.Report(examples=3, loss=2.0, accuracy=1.0, held_out=10))
    ended(store, Lease("tb", "b", 1), pb.Report(examples=1, loss=1.0, accuracy=0.5, held_out=30))
    ended(store, Lease("tc", "c", 1), pb.Report(accuracy=0.25, held_out=0), traffic=Traffic(100, 200, 0))
    record = round_record(store, 1, SPEC, 1.0, 1.0)
    assert record["client_metrics"] == {"accuracy": 0.625}
    assert record["client_accuracy"] == {"mean": 0.75, "deviation": 0.25, "worst_decile": 0.5, "clients": 2}
    assert record["train_loss"] == 1.75
    assert (record["bytes_up"], record["bytes_up_uncompressed"]) == (300, 3 * SPEC.nbytes)
    assert (record["bytes_down"], record["bytes_down_uncompressed"]) == (600, 2 * SPEC.nbytes)  # one had the model


def test_the_last_evaluation_is_a_round_in_which_nobody_trained(store: Store) -> None:
    ended(store, Lease("ta", "a", 1), pb.Report(examples=3, loss=2.0, accuracy=1.0, held_out=10))
    said = pb.Report(accuracy=0.5, held_out=1)
    ended(store, Lease("te", "a", 1, evaluate=True), said, traffic=Traffic(0, 50, 1))
    record = evaluation_record(store, 1, SPEC, 1.0, 1.0)
    assert (record["round"], record["train_loss"], record["client_metrics"]) == (2, None, {"accuracy": 0.5})
    assert (record["bytes_up_uncompressed"], record["bytes_down_uncompressed"]) == (0, SPEC.nbytes)


def test_what_comes_late_says_nothing_of_the_model_that_arrived(store: Store) -> None:
    ended(store, Lease("ta", "new", 3), pb.Report(accuracy=0.5, held_out=10), 3)
    ended(store, Lease("tb", "late", 2), pb.Report(accuracy=1.0, held_out=10), 3)
    record = round_record(store, 3, SPEC, 1.0, 1.0)
    assert record["client_metrics"] == {"accuracy": 0.5}
    assert record["client_accuracy"]["clients"] == 2
    assert record["updates"] == 2


def test_a_mean_of_fewer_than_the_least_is_not_written_down_whoever_came_late(store: Store) -> None:
    for i in range(4):
        ended(store, Lease(f"t{i}", f"c{i}", 2 + (i == 0)), pb.Report(accuracy=0.5, held_out=10), 3)
    assert round_record(store, 3, SPEC, 1.0, 1.0, Cover(least=2))["client_metrics"] == {}
    assert round_record(store, 3, SPEC, 1.0, 1.0)["client_metrics"] == {"accuracy": 0.5}


@pytest.mark.parametrize("ends", [(Fate.COUNTED, Fate.DECLINED), (Fate.DECLINED, Fate.COUNTED)])
def test_of_a_client_with_two_leases_in_a_round_the_one_that_counted_says_what_it_is(
    store: Store, ends: tuple[Fate, Fate]
) -> None:
    for i, fate in enumerate(ends):
        said = pb.Report(examples=7, accuracy=0.5, held_out=4) if fate is Fate.COUNTED else pb.Report()
        ended(store, Lease(f"t{i}", "a", 1), said, fate=fate)
    record = round_record(store, 1, SPEC, 1.0, 1.0)
    client = record["clients"]["a"]
    assert (client["fate"], client["examples"], client["bytes_up"]) == ("counted", 7, 200)
    assert record["client_accuracy"]["clients"] == 1


def test_fidelity_of_updates_is_over_their_energy_and_of_two_leases_of_a_client_both_count(store: Store) -> None:
    ended(store, Lease("ta", "a", 1), pb.Report(examples=1, given=8.0, lost=2.0))
    ended(store, Lease("tb", "b", 1), pb.Report(examples=100, given=1.0, lost=1.0))
    ended(store, Lease("tc", "a", 1), pb.Report(examples=1, given=1.0, lost=0.0))
    record = round_record(store, 1, SPEC, 1.0, 1.0, Cover(), Outcome(Loss(4.0, 1.0), Loss(2.0, 0.5), 0.25))
    assert record["fidelity_up"] == pytest.approx(0.7)
    assert (record["fidelity_aggregate"], record["fidelity_down"], record["moved"]) == (0.75, 0.75, 0.25)
    assert (record["clients"]["a"]["given"], record["clients"]["a"]["lost"]) == (9.0, 2.0)


def test_where_nothing_was_given_or_said_no_fidelity_is_known(store: Store) -> None:
    assert fidelity(None) is None
    assert fidelity(Loss(0.0, 0.0)) is None
    assert fidelity(Loss(1.0, 3.0)) == 0.0
    ended(store, Lease("ta", "a", 1), pb.Report(examples=1))
    record = round_record(store, 1, SPEC, 1.0, 1.0, Cover(), Outcome(Loss(4.0, 0.0)))
    assert (record["fidelity_up"], record["fidelity_aggregate"]) == (None, None)


@pytest.mark.parametrize("cover", [Cover(noised=True), Cover(least=3)])
def test_the_fidelity_of_few_updates_or_without_noise_does_not_leave(store: Store, cover: Cover) -> None:
    for i in range(2):
        ended(store, Lease(f"t{i}", f"c{i}", 1), pb.Report(examples=1, given=1.0, lost=0.5))
    record = round_record(store, 1, SPEC, 1.0, 1.0, cover, Outcome(Loss(1.0, 0.1), Loss(1.0, 0.25), 0.5))
    assert (record["fidelity_up"], record["fidelity_aggregate"], record["clients"]) == (None, None, {})
    assert (record["fidelity_down"], record["moved"]) == (0.75, 0.5)  # of what is published


def test_who_declined_because_training_diverged_is_counted(store: Store) -> None:
    ended(store, Lease("ta", "a", 1), pb.Report(examples=1))
    ended(store, Lease("tb", "b", 1), pb.Report(loss=math.nan), fate=Fate.DECLINED)
    record = round_record(store, 1, SPEC, 1.0, 1.0)
    assert (record["declined"], record["diverged"], record["clients"]["b"]["loss"]) == (1, 1, None)
    assert diverged(store, 1)
    for i in range(2):
        ended(store, Lease(f"t{i}", f"c{i}", 1), pb.Report(), fate=Fate.DECLINED)
    assert not diverged(store, 1)


def test_a_metric_that_is_no_number_is_none_and_named(store: Store) -> None:
    record = with_metrics(round_record(store, 0, SPEC, 0.0, 0.0), {"loss": math.nan, "auc": math.inf, "accuracy": 0.5})
    assert record["metrics"] == {"loss": None, "auc": None, "accuracy": 0.5}
    assert record["not_finite"] == ["metrics.auc", "metrics.loss"]


def test_the_estimate_of_the_aggregates_loss_is_right_for_independent_errors() -> None:
    """Errors in random directions: the energy of the weighted mean's error is what the formula says, within a tenth."""
    rng, spec = np.random.default_rng(0), Spec.of({"w": np.zeros(20_000, np.float32)})
    weights, common = (1.0, 2.0, 5.0), rng.normal(size=20_000)
    gathering, true, total = Gathering(spec), np.zeros(20_000), sum(weights)
    for weight in weights:
        error = weight * rng.normal(size=20_000)
        update = {"w": (common - error).astype(np.float32)}
        gathering.fold(update, Share(weight, scale=0.5), float(np.sum(error**2)))
        true += 0.5 * weight * error / total
    found = gathering.aggregate(3)
    assert found.lost == pytest.approx(float(np.sum(true**2)), rel=0.1)
    assert energy(found.mean) > 0
    gathering.clear()
    gathering.fold({"w": common.astype(np.float32)}, Share(1.0))
    assert gathering.aggregate(1).lost == 0.0
