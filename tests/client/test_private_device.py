from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.device import Device, Note
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.learner import Learner
from fedpress.client.trainers import registry
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.vault import Vault
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError, PrivacyError
from fedpress.privacy.accounting import Steps, epsilon, extended
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData

TRAINING = pb.Training(epochs=1, batch_size=16, optimizer="sgd", lr=0.1)
ONE_ROUND = Steps(1.0, 1 / 4, 4)  # 64 examples in batches of 16


Run = Callable[..., Any]


@pytest.fixture
def run(toys: Run, tmp_path: Path) -> Run:
    """``run(trainer, rounds=..., until=..., **ticket)``: a device works at a server that says so, until it stops or has
    sent ``until`` updates; returns the server and what the device's vault then says was spent."""

    def play(trainer: Any, until: int = 99, toy: Any = None, **ticket: Any) -> Any:
        toy = toy or toys(trainer.initial(7), codec="int8", **ticket)
        link = GrpcLink(f"127.0.0.1:{toy.port}")
        with Vault(tmp_path / "v", durable=False) as vault:
            device = Device(link, vault, trainer, "dora", "digits", patience=0.0, sleep=lambda _: None)
            while device.stopped is None and len(toy.updates) < until:
                device.step()
        link.close()
        with Vault(tmp_path / "v", durable=False) as vault:
            return toy, vault.history

    return play


@pytest.fixture(scope="module", params=["torch", "numpy"])
def trainer(request: pytest.FixtureRequest) -> Any:
    """On 64 examples."""
    task = load_task("digits")
    data = task.data(Path())
    return registry.make(request.param, task, ClientData(data.train.take(np.arange(64)), data.test), 0, "cpu")


def test_a_budget_that_ends_between_two_fits_has_paid_for_the_first(run: Run, trainer: Any) -> None:
    """Nothing of the first leaves either; but the data were used, and what a device keeps only grows."""
    one_fit = epsilon((ONE_ROUND,), 1e-5)
    privacy = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5, max_epsilon=one_fit * 1.01)
    ditto = pb.Rule(name="ditto", options={"lam": 0.1, "personal_epochs": 1.0})
    toy, history = run(trainer, rounds=1, training=TRAINING, rule=ditto, privacy=privacy)
    assert "past this device's budget" in toy.declined[0]
    assert (toy.updates, history) == ([], (ONE_ROUND,))


def test_a_budget_that_ends_in_the_middle_of_a_rules_own_steps_has_paid_for_those_before(
    run: Run, trainer: Any
) -> None:
    half = (Steps(1 / math.sqrt(2), 1 / 4, 2), Steps(1.0, 1 / 4, 1))  # two batches asked twice, one once
    budget = epsilon(half, 1e-5) * 1.0001
    privacy = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5, max_epsilon=budget)
    apfl = pb.Rule(name="apfl", options={"alpha": 0.5, "adaptive": 0.0})
    toy, history = run(trainer, rounds=1, training=TRAINING, rule=apfl, privacy=privacy)
    assert "past this device's budget" in toy.declined[0]
    assert toy.updates == []
    assert sorted(history) == sorted(half)


def test_a_target_is_met_over_the_rounds_it_is_for_through_a_restart(run: Run, trainer: Any) -> None:
    privacy = pb.LocalPrivacy(clip_norm=1.0, delta=1e-5, target_epsilon=3.0, rounds=3, passes=3)
    toy, after_one = run(trainer, until=1, rounds=9, training=TRAINING, privacy=privacy)
    toy, history = run(trainer, toy=toy)
    assert len(toy.updates) == 3
    assert len(toy.declined) == 6, "there were more rounds than the target was for"
    assert "(privacy.epsilon)" in toy.declined[0]
    assert history == (after_one[0]._replace(steps=12),), "the same noise before the restart and after"
    assert 0.99 * 3.0 < toy.reports[-1].epsilon <= 3.0


def test_what_earlier_runs_spent_counts_against_a_target(run: Run, trainer: Any, tmp_path: Path) -> None:
    earlier = (Steps(1.0, 1 / 4, 8),)
    with Vault(tmp_path / "v", durable=False) as vault:
        vault.spend(earlier)
    privacy = pb.LocalPrivacy(clip_norm=1.0, delta=1e-5, target_epsilon=3.0, rounds=3, passes=3)
    toy, history = run(trainer, rounds=1, training=TRAINING, privacy=privacy)
    assert (toy.updates, history) == ([], earlier)


@pytest.mark.parametrize(
    ("privacy", "rule", "reason"),
    [
        ({"delta": 1 / 64}, "fedavg", r"Expected delta below 1/64, .* \(privacy\.delta\)"),
        ({"delta": 1 / 64}, "apfl", r"Expected delta below 1/64, .* \(privacy\.delta\)"),
        ({"clipping": "adaptive"}, "fedavg", r"flat, per-layer, ghost.*'adaptive' \(privacy\.clipping\)"),
        ({"noise_multiplier": float("inf")}, "fedavg", "noise_multiplier > 0"),
        ({"clip_norm": 0.0}, "apfl", "clip_norm > 0"),
        ({"target_epsilon": 3.0}, "fedavg", "a number of rounds from the server"),
        ({"target_epsilon": 0.001, "rounds": 3, "passes": 3}, "fedavg", "No noise brings epsilon down to 0.001"),
        ({}, "ifca", "no local privacy with the rule 'ifca'"),
    ],
)
def test_a_promise_that_means_nothing_is_declined_for_good_with_the_reason(
    run: Run, trainer: Any, privacy: dict[str, Any], rule: str, reason: str
) -> None:
    said = pb.LocalPrivacy(**{"noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-5, **privacy})
    options = {"alpha": 0.5, "adaptive": 0.0} if rule == "apfl" else {}
    toy, history = run(trainer, rounds=9, training=TRAINING, rule=pb.Rule(name=rule, options=options), privacy=said)
    assert re.search(reason, toy.declined[0])
    assert (len(toy.declined), toy.updates, history) == (1, [], ())


def test_full_batches_are_fine(run: Run, trainer: Any) -> None:
    privacy = pb.LocalPrivacy(noise_multiplier=5.0, clip_norm=1.0, delta=1e-5)
    full = pb.Training(epochs=2, batch_size=100, optimizer="sgd", lr=0.1)
    _, history = run(trainer, rounds=1, training=full, privacy=privacy)
    assert history == (Steps(5.0, 1.0, 2),)


def test_a_batch_that_a_rule_made_itself_has_no_promise(trainer: Any) -> None:
    privacy = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5)
    learner = Learner(trainer, TRAINING, Stream(1), 0, privacy)
    point = learner.point(trainer.initial(0))
    with pytest.raises(PlanError, match="batches that the learner drew"):
        learner.gradient(point, np.arange(4))
    rows = next(learner.batches())
    with pytest.raises(PrivacyError, match="as it was drawn"):
        learner.gradient(point, rows.copy())
    with pytest.raises(PlanError, match="losses"):
        learner.loss(trainer.initial(0))
    assert learner.history == ()


def test_epsilon_is_kept_through_a_restart_and_the_budget_ends_in_a_decline(
    toys: Callable[..., Any], tmp_path: Path
) -> None:
    task = load_task("digits")
    data = task.data(Path())
    trainer = TorchTrainer(task, ClientData(data.train.take(np.arange(64)), data.test), 0, "cpu", secret_noise=False)
    two_rounds = epsilon(extended((ONE_ROUND,), ONE_ROUND), 1e-5)
    privacy = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5, max_epsilon=two_rounds * 1.01)
    toy = toys(trainer.initial(7), codec="int8", training=TRAINING, privacy=privacy)
    notes: list[Note] = []

    def run(until: int) -> None:
        link = GrpcLink(f"127.0.0.1:{toy.port}")
        with Vault(tmp_path / "v", durable=False) as vault:
            device = Device(
                link, vault, trainer, "dora", "digits", patience=0.0, listener=notes.append, sleep=lambda _: None
            )
            while device.stopped is None and len(toy.updates) < until:
                device.step()
        link.close()

    run(until=1)
    with Vault(tmp_path / "v", durable=False) as vault:
        assert vault.history == (ONE_ROUND,), "written before the update left"
    run(until=99)
    assert [report.epsilon for report in toy.reports] == pytest.approx([epsilon((ONE_ROUND,), 1e-5), two_rounds])
    assert [report.loss for report in toy.reports] == [0.0, 0.0], "the loss of private examples is private"
    assert len(toy.updates) == 2
    assert "past this device's budget" in toy.declined[0]
    assert notes[-1].kind == "done"
