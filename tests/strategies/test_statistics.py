"""Running statistics of normalisation layers follow the data: no strategy's arithmetic on gradients reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.trainers.trainer import Trainer
from fedpress.compression.stream import Stream
from fedpress.task import ClientData, Split, Task

STATISTICS = ("1.running_mean", "1.running_var")
#: Whose updates count alike: held against FedAvg that does so too.
UNIFORM = ["scaffold", "feddyn"]
WEIGHTED = ["fedprox", "fednova", "moon", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]


@pytest.fixture(scope="module")
def normalised() -> list[Trainer]:
    """Two clients of unlike scale and size, a network with batch normalisation."""
    made: list[Trainer] = []
    for client, (size, scale) in enumerate([(8, 1.0), (24, 5.0)]):
        rng = Stream.of("normalised", client)
        x = (rng.uniform(4 * size).reshape(size, 4) - np.float32(0.3)) * np.float32(scale)
        split = Split(x, (rng.u64(size) % np.uint64(3)).astype(np.int64))

        def model() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3))

        def data(_: Any, split: Split = split) -> Any:
            return split, split

        made.append(TorchTrainer(Task("normalised", model, data), ClientData(split, split), 0, "cpu"))
    return made


@pytest.mark.parametrize("name", [*UNIFORM, *WEIGHTED])
def test_they_are_averaged_whatever_the_strategy(rounds: Any, normalised: list[Trainer], name: str) -> None:
    # one step: what its forward pass saw is the same in all strategies; batches of 8 and 24 make steps of 1 and 3
    weighting = "strategy.weighting=uniform" if name in UNIFORM else "strategy.weighting=examples"
    more = [] if name == "fednova" else ["train.max_steps=1"]
    said = ("train.batch_size=8", *more)
    found = rounds(normalised, 1, f"strategy.name={name}", *said).weights
    plain = rounds(normalised, 1, weighting, *said).weights
    for statistic in STATISTICS:
        np.testing.assert_allclose(found[statistic], plain[statistic], rtol=1e-5, atol=1e-6)
    later = rounds(normalised, 4, f"strategy.name={name}", *said)
    assert (later.weights["1.running_var"] > 0).all()
    assert not [n for n in later.state if n.endswith(STATISTICS)]  # no momentum, no h


def test_scaffold_has_no_variate_for_them(rounds: Any, normalised: list[Trainer]) -> None:
    played = rounds(normalised, 2, "strategy.name=scaffold")
    beside = {n.removeprefix("control:") for n in played.model if n.startswith("control:")}
    assert beside == set(normalised[0].spec.named("weight")) == {n.removeprefix("control:") for n in played.own[0]}


@pytest.mark.parametrize(("name", "kept"), [("pfedme", "pfedme"), ("apfl", "local")])
def test_a_devices_own_model_has_those_of_what_it_was_trained_as(
    rounds: Any, normalised: list[Trainer], name: str, kept: str
) -> None:
    """pFedMe's shared copy those of the personal model; APFL's own model those of the mixture."""
    once = ["strategy.inner=1"] * (name == "pfedme")
    played = rounds(normalised[:1], 1, f"strategy.name={name}", "train.batch_size=8", *once)
    plain = rounds(normalised[:1], 1, "train.batch_size=8").weights
    for statistic in STATISTICS:
        own = played.own[0][f"{kept}:{statistic}"]
        assert not np.allclose(own, normalised[0].initial(0)[statistic])
        np.testing.assert_allclose(own, plain[statistic], atol=1e-5)  # one step: of the model that arrived
        if name == "pfedme":
            np.testing.assert_allclose(played.weights[statistic], own, atol=1e-6)


def test_fedreps_body_keeps_them_while_its_head_is_trained(rounds: Any, normalised: list[Trainer]) -> None:
    """One step of the body moves them once, whatever the head was trained before."""
    words = ("strategy.name=fedrep", 'strategy.personal=["2.*"]', "strategy.head_epochs=3", "train.batch_size=8")
    found, plain = (rounds(normalised[:1], 1, *more).weights for more in (words, words[-1:]))
    for statistic in STATISTICS:
        np.testing.assert_allclose(found[statistic], plain[statistic], atol=1e-6)
