from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.device import Device, Note
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.vault import Vault
from fedpress.privacy.accounting import Steps, epsilon, extended
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData

TRAINING = pb.Training(epochs=1, batch_size=16, optimizer="sgd", lr=0.1)
ONE_ROUND = Steps(1.0, 1 / 4, 4)  # 64 examples in batches of 16


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
