"""Two clients, one number, one or two rounds: what each paper's formulas give, worked out by hand beside each test.

Client ``i`` has the loss ``f_i(w) = a_i / 2 * (w - b_i)**2``, so that its gradient is ``a_i * (w - b_i)``. The numbers
are small binary fractions wherever the algorithm allows: the results are then exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fedpress.client.learner import Learner
from fedpress.client.rules import rule
from fedpress.client.trainers.numpy_trainer import NumpyTrainer
from fedpress.compression.stream import Stream
from fedpress.params import Spec, subtract
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.aggregate import Gathering
from fedpress.server.strategies import Share, build
from fedpress.task import ClientData, Split

# Throughout a = 2, b = 4 for client 0 and a = 1, b = -4 for client 1, lr = 1/4, w = 0 at first. A plain step
# goes half of the way to 4, or a quarter of the way to -4.
LR = "train.lr=0.25"
TWICE = "train.epochs=2"


def test_fedavg(rounds: Any, bowl: Any) -> None:
    # w = 0, lr = 1/4, one step each. Client 0 (a = 2, b = 4, 3 examples): 0 - 1/4 * 2 * (0 - 4) = 2.
    # Client 1 (a = 1, b = -4, 1 example): 0 - 1/4 * 1 * (0 + 4) = -1. By examples (3 * 2 - 1) / 4, uniformly 1/2.
    trainers = [bowl(2, 4, examples=3), bowl(1, -4)]
    assert rounds(trainers, 1, LR).weights["w"] == 1.25
    assert rounds(trainers, 1, LR, "strategy.weighting=uniform").weights["w"] == 0.5


def play(rounds: Any, bowl: Any, n: int, name: str, *overrides: str, **more: Any) -> Any:
    """Rounds of the two clients."""
    return rounds([bowl(2, 4), bowl(1, -4)], n, LR, f"strategy.name={name}", *overrides, **more)


def test_fedprox(rounds: Any, bowl: Any) -> None:
    # mu = 1, two steps. Client 0: to 2 by -8; then the gradient is 2 * (2 - 4) + 1 * (2 - 0) = -2: to 5/2.
    # Client 1: to -1 by 4; then (-1 + 4) + (-1 - 0) = 2: to -3/2. Mean: 1/2. (FedAvg: 3 and -7/4, mean 5/8.)
    assert play(rounds, bowl, 1, "fedprox", "strategy.mu=1", TWICE).weights["w"] == 0.5
    assert play(rounds, bowl, 1, "fedavg", TWICE).weights["w"] == 0.625
    # From 1/2. Client 0: to 9/4 by -7; then 2 * (9/4 - 4) + 1 * (9/4 - 1/2) = -7/4: to 43/16.
    # Client 1: to -5/8 by 9/2; then (-5/8 + 4) + (-5/8 - 1/2) = 9/4: to -19/16. Mean: 3/4.
    assert play(rounds, bowl, 2, "fedprox", "strategy.mu=1", TWICE).weights["w"] == 0.75


def test_scaffold(rounds: Any, bowl: Any) -> None:
    # Two steps (K eta = 1/2). Round 1, without variates: 3 and -7/4, x = 5/8.
    # c_0 = (0 - 3) / (1/2) = -6, c_1 = (0 + 7/4) / (1/2) = 7/2, c = their mean = -5/4.
    first = play(rounds, bowl, 1, "scaffold", TWICE)
    assert (first.weights["w"], first.model["control:w"]) == (5 / 8, -5 / 4)
    assert [own["control:w"] for own in first.own] == [-6, 7 / 2]
    # Round 2 from 5/8. Client 0 adds c - c_0 = 19/4: -27/4 + 19/4 = -2: to 9/8; -23/4 + 19/4 = -1: to 11/8.
    # Client 1 adds c - c_1 = -19/4: 37/8 - 19/4 = -1/8: to 21/32; 149/32 - 152/32 = -3/32: to 87/128.
    # x = (176 + 87) / 256. c_0 = -6 + 5/4 + (5/8 - 11/8) * 2 = -25/4; c_1 = 7/2 + 5/4 + (80 - 87) / 128 * 2 = 297/64.
    # c = -5/4 + 1/2 * ((-25/4 + 6) + (297/64 - 7/2)) = -103/128, their mean again.
    second = play(rounds, bowl, 2, "scaffold", TWICE)
    assert (second.weights["w"], second.model["control:w"]) == (263 / 256, -103 / 128)
    assert [own["control:w"] for own in second.own] == [-25 / 4, 297 / 64]


def test_scaffold_with_part_of_its_clients(rounds: Any, bowl: Any) -> None:
    # Only client 0 in round 1: x = 3, c_0 = -6, c = 0 + 1/2 * -6 (of N = 2 clients, one).
    # Only client 1 in round 2, c - c_1 = -3: 7 - 3 = 4: to 2; 6 - 3 = 3: to 5/4.
    # c_1 = 0 + 3 + (3 - 5/4) * 2 = 13/2, c = -3 + 1/2 * 13/2.
    played = play(rounds, bowl, 2, "scaffold", TWICE, cohorts=[[0], [1]])
    assert (played.weights["w"], played.model["control:w"]) == (1.25, 0.25)
    assert [own["control:w"] for own in played.own] == [-6, 6.5]


def test_scaffold_learns_nothing_of_gradients_from_steps_of_no_length(rounds: Any, bowl: Any) -> None:
    # The schedule ends at 0: the second round is as if it had not been.
    played = [
        play(rounds, bowl, 2, "scaffold", TWICE, "train.schedule=linear", cohorts=[[0], who]) for who in ([0], [1])
    ]
    for same in played:
        assert (same.weights["w"], same.model["control:w"], same.own[0]["control:w"]) == (3, -3, -6)
        assert same.own[1].get("control:w", 0) == 0


def test_the_servers_rate_scales_what_moves_the_model_and_not_what_is_remembered(rounds: Any, bowl: Any) -> None:
    # SCAFFOLD as above: x = 2 * 5/8, c = -5/4 all the same. FedDyn as below: x = 2 * 9/16 + 9/32 * 2, h = -9/32.
    scaffold = play(rounds, bowl, 1, "scaffold", TWICE, "strategy.lr=2")
    assert (scaffold.weights["w"], scaffold.model["control:w"]) == (5 / 4, -5 / 4)
    feddyn = play(rounds, bowl, 1, "feddyn", TWICE, "strategy.alpha=0.5", "strategy.lr=2")
    assert (feddyn.weights["w"], feddyn.state["w"]) == (27 / 16, -9 / 32)


def test_fednova(rounds: Any, bowl: Any) -> None:
    # Batches of one: client 0 has 3 examples and takes 3 steps, to 2, 3, 7/2; client 1 has one, to -1.
    # Mean steps 7/6 and -1; tau_eff = (3 * 3 + 1 * 1) / 4 = 5/2; x = 5/2 * (3/4 * 7/6 - 1/4 * 1) = 25/16.
    # (FedAvg: 3/4 * 7/2 - 1/4 = 19/8.)
    trainers = [bowl(2, 4, examples=3), bowl(1, -4)]
    said = (LR, "train.batch_size=1", "strategy.name=fednova")
    assert rounds(trainers, 1, *said).weights["w"] == pytest.approx(25 / 16)
    assert rounds(trainers, 1, *said, "strategy.lr=2").weights["w"] == pytest.approx(25 / 8)


def test_fednova_with_momentum(rounds: Any, bowl: Any) -> None:
    # rho = 1/2. Client 0: gradients -8, -4, 0 and velocities -8, -8, -4: to 2, 4, 5.
    # Its gradients weigh 7/4, 3/2, 1 in that (the paper's a): |a| = 17/4, and 1 for client 1's single step.
    # tau_eff = (3 * 17/4 + 1) / 4 = 55/16; x = 55/16 * (3/4 * 5 / (17/4) - 1/4) = 55/16 * 43/68.
    trainers = [bowl(2, 4, examples=3), bowl(1, -4)]
    played = rounds(trainers, 1, LR, "train.batch_size=1", "train.momentum=0.5", "strategy.name=fednova")
    assert played.weights["w"] == pytest.approx(55 / 16 * 43 / 68)


def test_feddyn(rounds: Any, bowl: Any) -> None:
    # alpha = 1/2, two steps. Round 1. Client 0: -8: to 2; -4 + 1/2 * 2 = -3: to 11/4; g_0 = 0 - 1/2 * 11/4 = -11/8.
    # Client 1: 4: to -1; 3 + 1/2 * -1 = 5/2: to -13/8; g_1 = 13/16.
    # Mean 9/16; h = -1/2 * 9/16 = -9/32; x = 9/16 + 9/32 * 2 = 9/8.
    first = play(rounds, bowl, 1, "feddyn", "strategy.alpha=0.5", TWICE)
    assert (first.weights["w"], first.state["w"]) == (9 / 8, -9 / 32)
    assert [own["gradient:w"] for own in first.own] == [-11 / 8, 13 / 16]
    # Round 2, client 0 alone, from 9/8: -23/4 + 0 + 11/8 = -35/8: to 71/32;
    # 2 * (71/32 - 4) + 1/2 * 35/32 + 11/8 = -105/64: to 673/256. That is 385/256 further.
    # g_0 = -11/8 - 385/512; h = -9/32 - 1/2 * 1/2 * 385/256 = -673/1024, the mean of g_0 and g_1 again.
    # x = 673/256 + 2 * 673/1024 = 2019/512.
    second = play(rounds, bowl, 2, "feddyn", "strategy.alpha=0.5", TWICE, cohorts=[[0, 1], [0]])
    assert (second.weights["w"], second.state["w"]) == (2019 / 512, -673 / 1024)
    assert second.own[0]["gradient:w"] == -11 / 8 - 385 / 512


def test_moon() -> None:
    # A layer z = relu(W * 1 + b) = (3, 4), and a last layer of zeros: the cross entropy pulls at the last layer alone.
    # Client 0 has a model of its own, in which z_prev = (4, 3). At its one step z = z_glob: that cosine is 1, its
    # gradient 0. s(z, z_prev) = 24/25, its gradient (4, 3) / 25 - 24/25 * (3, 4) / 25 = (28, -21) / 625.
    # t = 1/2 and mu = 1: p = 1 / (1 + e^(2 * (1 - 24/25))), and W moves by -1/4 * 2 * p * (28, -21) / 625.
    # Client 1 has none yet and trains plainly: its W stays. The mean moves half as far.
    model = {
        "body.weight": np.array([[3.0], [4.0]], np.float32),
        "body.bias": np.zeros(2, np.float32),
        "head.weight": np.zeros((2, 2), np.float32),
        "head.bias": np.zeros(2, np.float32),
    }
    split = Split(np.ones((1, 1), np.float32), np.zeros(1, np.int64))
    strategy = build(load(None, ["upload.codec=raw", "strategy.name=moon"]))
    half = rule(strategy.rule(Spec.of(model)))
    before = {f"previous:{n}": a for n, a in model.items()}
    before["previous:body.weight"] = np.array([[4.0], [3.0]], np.float32)
    gathering = Gathering(Spec.of(model))
    for own in (before, {}):
        trainer = NumpyTrainer(lambda seed: model, ClientData(split, split))
        said = pb.Training(epochs=1, batch_size=1, optimizer="sgd", lr=0.25)
        outcome = half.train(model, own, Learner(trainer, said, Stream(0), 0))
        assert all(np.array_equal(outcome.own[f"previous:{n}"], outcome.shared[n]) for n in model)
        gathering.fold(subtract(outcome.shared, model), Share(1.0))
    after, _ = strategy.step(model, gathering.aggregate(2), {})
    p = 1 / (1 + math.exp(2 * (1 - 24 / 25)))
    moved = 0.5 * 0.25 * 2 * p * np.array([28, -21]) / 625
    assert (after["body.weight"] - model["body.weight"]).ravel() == pytest.approx(-moved, abs=1e-6)


# One step each: from w the mean update is ((4 - w) / 2 + (-4 - w) / 4) / 2 = 1/2 - 3/8 * w.


def test_fedavgm(rounds: Any, bowl: Any) -> None:
    # beta = 1/2. v = 1/2, x = 1/2; v = 1/4 + 5/16 = 9/16, x = 17/16.
    assert play(rounds, bowl, 1, "fedavgm", "strategy.beta=0.5").weights["w"] == 0.5
    assert play(rounds, bowl, 2, "fedavgm", "strategy.beta=0.5").weights["w"] == 17 / 16


def test_fedadagrad(rounds: Any, bowl: Any) -> None:
    # tau = 3/8, lr = 1/2. v = 9/64 + 1/4 = 25/64; x = 1/2 * 1/2 / (5/8 + 3/8) = 1/4.
    # Then the mean is 1/2 - 3/32 = 13/32; v = 25/64 + 169/1024 = 569/1024;
    # x = 1/4 + 1/2 * 13/32 / (sqrt(569)/32 + 3/8).
    said = ("strategy.tau=0.375", "strategy.lr=0.5")
    assert play(rounds, bowl, 1, "fedadagrad", *said).weights["w"] == 0.25
    second = play(rounds, bowl, 2, "fedadagrad", *said)
    assert second.weights["w"] == pytest.approx(1 / 4 + 13 / 64 / (math.sqrt(569) / 32 + 3 / 8))
    assert second.state["v:w"] == 569 / 1024


def test_fedadam(rounds: Any, bowl: Any) -> None:
    # beta1 = 1/2, beta2 = 3/4, tau = 1/2, lr = 1. m = 1/4; v = 3/4 * 1/4 + 1/4 * 1/4 = 1/4;
    # x = 1/4 / (1/2 + 1/2) = 1/4.
    # Then the mean is 13/32: m = 1/8 + 13/64 = 21/64; v = 3/16 + 1/4 * 169/1024 = 937/4096;
    # x = 1/4 + 21/64 / (sqrt(937) / 64 + 1/2).
    said = ("strategy.beta1=0.5", "strategy.beta2=0.75", "strategy.tau=0.5", "strategy.lr=1")
    first = play(rounds, bowl, 1, "fedadam", *said)
    assert (first.weights["w"], first.state["m:w"], first.state["v:w"]) == (0.25, 0.25, 0.25)
    second = play(rounds, bowl, 2, "fedadam", *said)
    assert (second.state["m:w"], second.state["v:w"]) == (21 / 64, 937 / 4096)
    assert second.weights["w"] == pytest.approx(1 / 4 + 21 / (math.sqrt(937) + 32))


def test_fedyogi(rounds: Any, bowl: Any) -> None:
    # beta1 = 0, beta2 = 3/4, tau = 3/16, lr = 1. The square 1/4 is above v = 9/256, which grows by a quarter of it, to
    # 25/256: x = 1/2 / (5/16 + 3/16) = 1. Then the mean is 1/8, its square 4/256 below v, which shrinks by a quarter
    # of it, to 24/256 (Adam's would go to 19.75/256): x = 1 + 1/8 / (sqrt(24) / 16 + 3/16).
    said = ("strategy.beta1=0", "strategy.beta2=0.75", "strategy.tau=0.1875", "strategy.lr=1")
    first = play(rounds, bowl, 1, "fedyogi", *said)
    assert (first.weights["w"], first.state["v:w"]) == (1, 25 / 256)
    second = play(rounds, bowl, 2, "fedyogi", *said)
    assert second.state["v:w"] == 24 / 256
    assert second.weights["w"] == pytest.approx(1 + 2 / (math.sqrt(24) + 3))
