from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fedpress.client import actions, events
from fedpress.client.device import Device, Note
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.learner import Learner
from fedpress.client.session import Session
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.trainers.trainer import Trainer
from fedpress.client.vault import Vault
from fedpress.compression.stream import Stream
from fedpress.errors import SpecError
from fedpress.params import Spec, content_hash
from fedpress.protos import fleet_pb2 as pb

SIZE = 20_000
GONE = grpc.StatusCode.UNAVAILABLE
Toys = Callable[..., Any]


class Fleet:
    """One device on a toy server, restarted at will. ``notes``: all it said; ``naps``: all its pauses, not slept."""

    def __init__(self, toy: Any, directory: Path, trainer: Trainer) -> None:
        self.toy, self.directory, self.trainer = toy, directory, trainer
        self.notes: list[Note] = []
        self.naps: list[float] = []

    def device(self) -> tuple[Device, GrpcLink, Vault]:
        link, vault = GrpcLink(f"127.0.0.1:{self.toy.port}"), Vault(self.directory, durable=False)
        made = Device(
            link, vault, self.trainer, "dora", "toy", patience=0.0, listener=self.notes.append, sleep=self.nap
        )
        return made, link, vault

    def nap(self, seconds: float) -> None:
        self.naps.append(seconds)

    def run(self) -> str:
        made, link, vault = self.device()
        with vault:
            reason = made.run()
            link.close()
        return reason

    def run_until(self, kind: type) -> None:
        """Run until an action of this kind was performed, then drop everything, as a killed process would."""
        made, link, vault = self.device()
        while not isinstance(made.step(), kind):
            pass
        link.close()
        vault.close()

    def said(self, *kinds: str) -> list[str]:
        return [note.kind for note in self.notes if not kinds or note.kind in kinds]


@pytest.fixture
def idle() -> IdleTrainer:
    return IdleTrainer.of_size(SIZE)


@pytest.fixture
def fleet(toys: Toys, tmp_path: Path, idle: IdleTrainer) -> Fleet:
    return Fleet(toys(idle.initial(0)), tmp_path / "vault", idle)


def fingerprint(toy: Any) -> list[str]:
    return [content_hash(update) for update in toy.updates]


def test_a_run_from_enrolment_to_the_end(fleet: Fleet) -> None:
    assert fleet.run() == "that was all"
    assert len(fleet.toy.updates) == 3
    assert fleet.toy.offsets == [0, 0, 0]
    assert fleet.said() == ["enrolled", *["fetched", "trained", "pushed"] * 3, "done"]
    first = fleet.toy.enrolled[0]
    assert (first.name, first.task, first.spec_hash) == ("dora", "toy", bytes.fromhex(fleet.trainer.spec.hash))
    assert set(first.capabilities.trainers) == {"idle"}
    assert {"topk", "uniform", "ef", "chain"} <= set(first.capabilities.codecs)


def test_two_runs_of_the_same_seed_and_name_send_the_same_bytes(toys: Toys, tmp_path: Path, idle: IdleTrainer) -> None:
    codec = "randomk:0.1+uniform:4,stochastic=true"
    fleets = [Fleet(toys(idle.initial(0), codec=codec), tmp_path / str(i), idle) for i in range(2)]
    fleets[0].run()
    fleets[1].run()
    assert fingerprint(fleets[0].toy) == fingerprint(fleets[1].toy)


def broken_run(toys: Toys, where: Path, idle: IdleTrainer, broken: dict[str, list[Any]], **options: Any) -> Fleet:
    made = Fleet(toys(idle.initial(0), broken=broken, **options), where, idle)
    assert made.run() == "that was all"
    return made


@pytest.mark.parametrize(
    "broken",
    [
        {"Fetch": [(2, GONE), (1, GONE), (0, GONE)]},
        {"Fetch": [(3, "flip")]},
        {"Fetch": [(1, "FAULT_UNKNOWN_BLOB")]},
        {"Push": [(1, GONE), (0, GONE)]},
        {"Push": [(-1, GONE)]},
        {"Push": [(1, "FAULT_BUSY")], "Offset": ["FAULT_BUSY", GONE]},
        {"GetWork": [GONE, "FAULT_UNSPECIFIED", "FAULT_BUSY", grpc.StatusCode.DEADLINE_EXCEEDED]},
        {"Enrol": [GONE, "FAULT_BUSY"]},
    ],
    ids=str,
)
def test_whatever_breaks_on_the_way_the_same_updates_are_counted_once(
    toys: Toys, tmp_path: Path, idle: IdleTrainer, broken: dict[str, list[Any]]
) -> None:
    smooth = broken_run(toys, tmp_path / "smooth", idle, {})
    rough = broken_run(toys, tmp_path / "rough", idle, {k: list(v) for k, v in broken.items()})
    assert not any(rough.toy.broken.values()), "everything that was to break did"
    assert fingerprint(rough.toy) == fingerprint(smooth.toy)


def test_a_broken_fetch_resumes_at_the_byte_and_a_broken_push_too(
    toys: Toys, tmp_path: Path, idle: IdleTrainer
) -> None:
    made = broken_run(toys, tmp_path / "v", idle, {"Fetch": [(3, GONE)], "Push": [(2, GONE)]}, chunk=1024)
    (first, size), (second, _), *_ = made.toy.fetched
    assert (first, second) == (0, 3 * 1024)
    assert size > SIZE
    assert made.toy.offsets[:2] == [0, 2 * 1024]


@pytest.mark.parametrize("kind", [actions.Rebuild, actions.Train, actions.Push, actions.Commit])
def test_killed_after_any_action_it_goes_on_without_losing_or_repeating(
    toys: Toys, tmp_path: Path, idle: IdleTrainer, kind: type
) -> None:
    smooth = broken_run(toys, tmp_path / "smooth", idle, {})
    made = Fleet(toys(idle.initial(0)), tmp_path / "v", idle)
    made.run_until(kind)
    made.run_until(kind)
    assert made.run() == "that was all"
    assert fingerprint(made.toy) == fingerprint(smooth.toy)
    assert len(made.toy.enrolled) == 3
    assert len({request.key for request in made.toy.enrolled}) == 1


@pytest.mark.parametrize("fault", ["FAULT_STALE_ROUND", "FAULT_MALFORMED", "FAULT_UNKNOWN_TICKET"])
def test_a_refused_update_is_dropped_with_its_residual(
    toys: Toys, tmp_path: Path, idle: IdleTrainer, fault: str
) -> None:
    """The round is asked for again, so with the old residual and the same draws the very same update arrives."""
    smooth = broken_run(toys, tmp_path / "smooth", idle, {})
    made = broken_run(toys, tmp_path / "v", idle, {"Push": [(0, fault)]}, chunk=1 << 20)
    assert made.said("dropped") == ["dropped"]
    assert fingerprint(made.toy) == fingerprint(smooth.toy)


def test_a_server_that_is_away_is_said_once_and_so_is_its_return(fleet: Fleet) -> None:
    port = fleet.toy.port
    fleet.toy.stop()
    device, link, vault = fleet.device()
    with vault:
        for _ in range(9):
            device.step()
        assert fleet.said() == ["gone"]
        assert "127.0.0.1" in fleet.notes[0].text
        assert len(fleet.naps) >= 4
        fleet.toy.start(port=port)
        fleet.nap = threading.Event().wait  # type: ignore[assignment, method-assign]
        device._sleep = fleet.nap
        assert device.run() == "that was all"
        link.close()
    assert fleet.said("gone", "back") == ["gone", "back"]


def test_a_device_the_server_forgot_enrols_anew_and_goes_on(fleet: Fleet) -> None:
    fleet.run_until(actions.Commit)
    fleet.toy.forget()
    assert fleet.run() == "that was all"
    assert len(fleet.toy.enrolled) == 2
    assert len({request.key for request in fleet.toy.enrolled}) == 1
    assert len(fleet.toy.updates) == 3


def test_the_model_held_survives_a_restart_and_only_deltas_are_fetched(fleet: Fleet) -> None:
    fleet.run_until(actions.Commit)
    fleet.run()
    assert fleet.toy.held == [fleet.toy.held[0], *[step.hash[:16] for step in fleet.toy._steps[:3]]]
    assert len(fleet.toy.fetched) == 3


def test_a_model_gone_wrong_in_memory_costs_one_full_download_and_is_never_trained_on(
    toys: Toys, tmp_path: Path, idle: IdleTrainer
) -> None:
    smooth = broken_run(toys, tmp_path / "smooth", idle, {})
    made = Fleet(toys(idle.initial(0)), tmp_path / "v", idle)
    device, link, vault = made.device()
    with vault:
        while not isinstance(device.step(), actions.Commit):
            pass
        vault.model = {n: np.nextafter(a, np.float32(1)) for n, a in vault.model.items()}
        assert device.run() == "that was all"
        link.close()
    hashes = [step.hash[:16] for step in made.toy._steps]
    assert made.toy.held == [made.toy.held[0], hashes[0], "", hashes[1], hashes[2]]
    assert fingerprint(made.toy) == fingerprint(smooth.toy)


def test_a_link_is_told_of_only_when_it_changed_by_a_quarter(fleet: Fleet) -> None:
    device, link, vault = fleet.device()
    with vault:
        device.step()
        for down in (0.0, 1000.0, 1240.0, 1260.0, 900.0):
            device.session = Session(Stream.of("again"))
            device.session.on(events.Enrolled())
            link.traffic.down.bytes_per_s = down
            assert isinstance(device.step(), actions.AskWork)
        link.close()
    assert [rates and rates.down for rates in fleet.toy.links] == [None, 1000, None, 1260, 900]


def test_a_device_whose_model_is_another_stops_naming_the_tensor(toys: Toys, tmp_path: Path, idle: IdleTrainer) -> None:
    other = Fleet(toys(IdleTrainer.of_size(SIZE + 1000).initial(0)), tmp_path / "v", idle)
    with pytest.raises(SpecError, match=r"tensor 'layer\.weight' float32\[\d+, \d+\], this device's model has"):
        other.run()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"codec": "raw", "rule": pb.Rule(name="fedprx")}, "Expected a rule this device knows, got 'fedprx'"),
        ({"rule": pb.Rule(name="fedavg", personal=["no.such"])}, "personal tensors of this device's model"),
        ({"rule": pb.Rule(name="fedavg", personal=["layer.bias"])}, "would have 'layer.bias' travel"),
        ({"rule": pb.Rule(name="fedprox")}, "option 'mu' of rule 'fedprox'"),
        ({"rule": pb.Rule(name="ifca")}, "Expected a "),
    ],
)
def test_work_it_could_never_do_is_declined_and_ends_it(
    toys: Toys, tmp_path: Path, idle: IdleTrainer, options: dict[str, Any], told: str
) -> None:
    made = Fleet(toys(idle.initial(0), **options), tmp_path / "v", idle)
    assert told in made.run()
    assert told in made.toy.declined[0]


def test_training_that_diverges_is_declined_and_the_device_goes_on(toys: Toys, tmp_path: Path) -> None:
    class Diverging(IdleTrainer):
        rounds = 0

        def train(self, model: Any, training: Any, rng: Any, *_: Any) -> Any:
            self.rounds += 1
            trained = super().train(model, training, rng)
            if self.rounds == 2:
                trained.tensors["layer.weight"][0, 0] = np.nan  # type: ignore[index]
            return trained

    diverging = Diverging.of_size(SIZE)
    made = Fleet(toys(diverging.initial(0)), tmp_path / "v", diverging)
    assert made.run() == "that was all"
    assert len(made.toy.updates) == 2
    assert "diverged" in made.toy.declined[0]


def test_stop_ends_it_between_two_actions(fleet: Fleet) -> None:
    stop = threading.Event()
    link, vault = GrpcLink(f"127.0.0.1:{fleet.toy.port}"), Vault(fleet.directory, durable=False)
    device = Device(
        link,
        vault,
        fleet.trainer,
        "dora",
        "toy",
        stop=stop,
        listener=lambda note: stop.set() if note.kind == "trained" else None,
    )
    with vault:
        assert device.run() == "stopped"
        assert vault.pending is not None
    link.close()
    assert fleet.run() == "that was all"
    assert len(fleet.toy.updates) == 3


def test_offers_beyond_all_reason_are_not_fetched(toys: Toys, tmp_path: Path, idle: IdleTrainer) -> None:
    toy = toys(idle.initial(0))
    honest = toy._getwork

    def greedy(request: Any, context: Any) -> Any:
        reply = honest(request, context)
        for blob in reply.ticket.recipe:
            blob.size = 1 << 40
        return reply

    toy.stop()
    toy._getwork = greedy
    toy.start()
    made = Fleet(toy, tmp_path / "v", idle)
    device, link, vault = made.device()
    with vault:
        for _ in range(8):
            device.step()
    link.close()
    assert not toy.fetched
    assert "refused" in made.said()


def test_fedpers_personal_tensors_stay_and_survive(toys: Toys, tmp_path: Path, idle: IdleTrainer) -> None:
    head = {n: a for n, a in idle.initial(7).items() if n == "layer.bias"}
    shared = {n: a for n, a in idle.initial(0).items() if n != "layer.bias"}
    said = pb.Rule(name="fedavg", personal=["layer.bias"])
    made = Fleet(toys(shared, rule=said), tmp_path / "v", idle)
    made.run_until(actions.Commit)
    with Vault(made.directory, durable=False) as vault:
        once = dict(vault.kept.personal)
    assert list(once) == ["layer.bias"]
    assert not np.array_equal(once["layer.bias"], head["layer.bias"]), "it was trained"
    made.run_until(actions.Commit)
    with Vault(made.directory, durable=False) as vault:
        twice = dict(vault.kept.personal)
    steps = {n: twice[n] - once[n] for n in once}
    assert 0 < max(float(np.abs(a).max()) for a in steps.values()) <= 1.1e-3, "from where it was, not from the start"
    made.run()
    assert all("layer.bias" not in update for update in made.toy.updates)
    assert Spec.of(made.toy.updates[0]) == Spec(tuple(t for t in idle.spec if t.name != "layer.bias"))


def test_a_whole_model_is_put_together_in_its_own_order(idle: IdleTrainer) -> None:
    learner = Learner(idle, pb.Training(), Stream(0), seed=7)
    bias = {"layer.bias": np.ones_like(idle.initial(0)["layer.bias"]), "control:layer.weight": np.zeros(3)}
    made = learner.whole(bias)
    assert list(made) == ["layer.weight", "layer.bias"]
    assert np.array_equal(made["layer.weight"], idle.initial(7)["layer.weight"]), "as the seed draws it"
    assert made["layer.bias"].all()
