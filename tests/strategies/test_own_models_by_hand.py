"""Ditto, pFedMe, APFL, Per-FedAvg, FedALA and IFCA on two quadratics: the numbers by hand, from the papers' formulas.

Client A has the loss ``(w - 2)**2 / 2``, gradient ``w - 2``; client B ``(w + 2)**2``, gradient ``2 w + 4``. One example
each, so that a pass is one step and both weigh the same. ``w`` begins at 0, the learning rate is 1/4. All is exact.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fedpress.client.learner import Learner
from fedpress.client.rules import rule
from fedpress.compression.stream import Stream
from fedpress.protos import fleet_pb2 as pb


def number(tensors: Any, name: str = "w") -> Fraction:
    return Fraction(float(tensors[name].item()))


@pytest.fixture
def play(rounds: Any, bowl: Any) -> Any:
    """``play(n, name, *options)``: the shared number, what each client uses, and what each keeps."""

    def go(n: int, name: str, *options: str) -> tuple[Fraction, list[Fraction], list[dict[str, Fraction]]]:
        played = rounds([bowl(1, 2), bowl(2, -2)], n, f"strategy.name={name}", "train.lr=0.25", *options)
        kept = [{k: number(own, k) for k in own} for own in played.own]
        return number(played.model), [number(p) for p in played.personal], kept

    return go


def test_ditto(play: Any) -> None:
    # Round 1. Shared: A 0 + 2/4 = 1/2, B 0 - 4/4 = -1, mean -1/4.
    # v, pulled to w = 0, two steps. A: 1/2, then 1/2 - 1/4 (1/2 - 2 + 1/2) = 3/4.
    #                                B: -1, then -1 - 1/4 (-2 + 4 - 1) = -5/4.
    one = (
        Fraction(-1, 4),
        [Fraction(3, 4), Fraction(-5, 4)],
        [{"ditto:w": Fraction(3, 4)}, {"ditto:w": Fraction(-5, 4)}],
    )
    assert play(1, "ditto", "strategy.lam=1", "strategy.personal_epochs=2") == one
    # Round 2. Shared: A -1/4 + 9/16 = 5/16, B -1/4 - 7/8 = -9/8, mean -13/32.
    # v, pulled to w = -1/4. A: 3/4 - 1/4 (-5/4 + 1) = 13/16, then 13/16 - 1/4 (-19/16 + 17/16) = 27/32.
    #                        B: -5/4 - 1/4 (3/2 - 1) = -11/8, then -11/8 - 1/4 (5/4 - 9/8) = -45/32.
    shared, personal, _ = play(2, "ditto", "strategy.lam=1", "strategy.personal_epochs=2")
    assert (shared, personal) == (Fraction(-13, 32), [Fraction(27, 32), Fraction(-45, 32)])


def test_pfedme(play: Any) -> None:
    # lam = 2, K = 2, eta * lam = 1/2, beta = 2.
    # A: theta = 1/2, then 1/2 - 1/4 (-3/2 + 2 * 1/2) = 5/8; w = 0 - 1/2 (0 - 5/8) = 5/16.
    # B: theta = -1, then -1 - 1/4 (2 - 2 * 1) = -1; w = -1/2. Shared: 2 * (5/16 - 1/2) / 2.
    shared, personal, _ = play(1, "pfedme", "strategy.lam=2", "strategy.inner=2", "strategy.eta=0.25", "strategy.lr=2")
    assert (shared, personal) == (Fraction(-3, 16), [Fraction(5, 8), Fraction(-1)])


def test_apfl(play: Any) -> None:
    # alpha = 1/4, two steps. A: gradient -2 at the mixture 0: v = 1/8, w = 1/2; mixture 13/32, gradient -51/32:
    # v = 1/8 + 51/512 = 115/512, w = 1/2 + 3/8 = 7/8.
    # B: gradient 4: v = -1/4, w = -1; mixture -13/16, gradient 19/8: v = -1/4 - 19/128 = -51/128, w = -3/2.
    # Shared: (7/8 - 3/2) / 2. Used: 1/4 v + 3/4 w.
    shared, personal, kept = play(1, "apfl", "strategy.alpha=0.25", "train.epochs=2")
    assert shared == Fraction(-5, 16)
    assert [k["local:w"] for k in kept] == [Fraction(115, 512), Fraction(-51, 128)]
    assert personal == [Fraction(-365, 2048), Fraction(-171, 512)]
    # alpha moves by -1/4 (v - w) gradient. First step: v = w. Second, A: 1/4 - 1/4 (1/8 - 1/2) (-51/32) = 103/1024.
    # B: 1/4 - 1/4 (-1/4 + 1) (19/8) < 0, and 0 is the least.
    shared, personal, kept = play(1, "apfl", "strategy.alpha=0.25", "strategy.adaptive=true", "train.epochs=2")
    assert [k["apfl:alpha"] for k in kept] == [Fraction(103, 1024), 0]
    assert personal == [
        Fraction(103, 1024) * Fraction(115, 512) + Fraction(921, 1024) * Fraction(-5, 16),
        Fraction(-5, 16),
    ]


@pytest.mark.parametrize(
    ("variant", "shared"),
    [
        # inner = 1/4. A: ahead 1/2, gradient there -3/2: w = 3/8. B: ahead -1, gradient 2: w = -1/2.
        ("fo", Fraction(-1, 16)),
        # A, Hessian 1: -3/2 - 1/4 * 1 * -3/2 = -9/8: w = 9/32. B, Hessian 2: 2 - 1/4 * 2 * 2 = 1: w = -1/4.
        ("hf", Fraction(1, 64)),
    ],
)
def test_per_fedavg(play: Any, variant: str, shared: Fraction) -> None:
    # Used: w - 1/4 gradient(w).
    personal = [shared - (shared - 2) / 4, shared - (2 * shared + 4) / 4]
    found = play(1, "per-fedavg", f"strategy.variant={variant}", "strategy.inner=0.25", "strategy.delta=0.25")
    assert found == (shared, personal, [{}, {}])


def test_fedala(play: Any) -> None:
    # Round 1 is FedAvg's: A 1/2, B -1, shared -1/4. Round 2, weight W, mixture 1/2 - 3/4 W and -1 + 3/4 W.
    # A at W = 1: gradient -9/4, times -3/4: W = 1 - 27/16, which is 0 at least; there it stays: -3/2 * -3/4 > 0.
    # B at W = 1: gradient 7/2, times 3/4: W = 1 - 21/8, 0; and stays. Both go on from their own:
    # A 1/2 + 3/8 = 7/8, B -1 - 1/2 = -3/2: shared (7/8 - 3/2) / 2.
    shared, _, kept = play(2, "fedala")
    assert shared == Fraction(-5, 16)
    assert kept == [{"local:w": Fraction(7, 8), "weights:w": 0}, {"local:w": Fraction(-3, 2), "weights:w": 0}]


def test_a_weight_of_fedala_goes_on_from_where_it_was(bowl: Any) -> None:
    # A, own 1/2, arrived -1/4, W = 3/4, rate 1/4: mixture -1/16, gradient -33/16, times -3/4: W = 3/4 - 99/256 =
    # 93/256; mixture 1/2 - 3/4 * 93/256 = 233/1024; fit: 233/1024 + 1/4 (2 - 233/1024) = 2747/4096.
    said = pb.Rule(name="fedala", options={"layers": 1, "sample": 1, "rate": 0.25})
    own = {"local:w": np.full(1, 0.5, np.float32), "weights:w": np.full(1, 0.75, np.float32)}
    training = pb.Training(epochs=1, batch_size=4, optimizer="sgd", lr=0.25)
    outcome = rule(said).train({"w": np.full(1, -0.25, np.float32)}, own, Learner(bowl(1, 2), training, Stream(0), 0))
    assert number(outcome.shared) == number(outcome.own, "local:w") == Fraction(2747, 4096)
    assert number(outcome.own, "weights:w") == Fraction(93, 256)


def ala(bowl: Any, arrived: float, rate: float, known: bool, examples: int = 1, sample: float = 1) -> tuple[int, int]:
    """Steps that FedALA's weight is learned by, and those of the fit: own 0, loss ``w**2 / 2``."""
    said = pb.Rule(name="fedala", options={"layers": 1, "sample": sample, "rate": rate})
    own = {"local:w": np.zeros(1, np.float32), **({"weights:w": np.ones(1, np.float32)} if known else {})}
    training = pb.Training(epochs=1, batch_size=4, optimizer="sgd", lr=0.25)
    learner = Learner(bowl(1, 0, examples=examples), training, Stream(0), 0)
    fitted = rule(said).train({"w": np.full(1, arrived, np.float32)}, own, learner).steps
    return learner.steps - fitted, fitted


def test_fedalas_weights_are_learned_until_the_loss_stands_still_the_first_time_then_once(bowl: Any) -> None:
    # W is 1 at first; at rate 1/512 it loses 1/8 of itself in a pass: the mixture is 8 W, the gradient times 8 is 64 W.
    # Pass k has the loss 32 * (7/8)**(2 k); it stands still once ten in a row deviate by less than 1/10.
    losses = [32 * (7 / 8) ** (2 * k) for k in range(100)]
    still = next(n for n in range(10, 100) if np.std(losses[n - 10 : n]) < 0.1)
    assert 20 < still < 100
    assert ala(bowl, 8.0, 1 / 512, known=False) == (still, 1)
    assert ala(bowl, 8.0, 1 / 512, known=True) == (1, 1)
    assert ala(bowl, 1024.0, 2.0**-27, known=False) == (100, 1), "it never does: at the latest then"
    assert ala(bowl, 0.0, 1.0, known=False) == (10, 1), "always did"


def test_fedalas_sample_is_of_whole_batches_and_of_one_at_least(bowl: Any) -> None:
    for sample, steps in ((1.0, 3), (0.5, 2), (0.1, 1)):
        assert ala(bowl, 1.0, 0.25, known=True, examples=10, sample=sample) == (steps, 3)


def test_ifca(rounds: Any, bowl: Any) -> None:
    # Cluster 0 begins at (1, 0), cluster 1 at (0, 1), cluster 2 at (1, 0) again. Losses |w - b|**2 / 2.
    # A, b = (2, 0): 1/2 against 5/2. B, b = (3, 0), three examples: 2 against 5: both choose 0, of equals the first.
    # C, b = (0, 4): 17/2 against 9/2: cluster 1. One step: A (5/4, 0), B (3/2, 0), C (0, 7/4).
    # Cluster 0: the mean of A and B by examples, (1/4 * 5/4 + 3/4 * 3/2, 0). Nobody chose cluster 2.
    clients = [bowl([1, 1], [2, 0]), bowl([1, 1], [3, 0], examples=3), bowl([1, 1], [0, 4])]
    start = {"w": np.array([1, 0], np.float32)}
    words = ["strategy.name=ifca", "strategy.clusters=3", "train.lr=0.25"]
    played = rounds(clients, 1, *words, initial=start)
    assert {i: dict(r.facts) for i, r in played.reports[0].items()} == {
        0: {"cluster": 0.0},
        1: {"cluster": 0.0},
        2: {"cluster": 1.0},
    }
    assert {n: a.tolist() for n, a in played.model.items()} == {
        "cluster0:w": [1.4375, 0.0],
        "cluster1:w": [0.0, 1.75],
        "cluster2:w": [1.0, 0.0],
    }
    assert [p["w"].tolist() for p in played.personal] == [[1.4375, 0.0], [1.4375, 0.0], [0.0, 1.75]]
    assert not any(played.own)
    # The server's rate 2, of each cluster by itself: twice as far from where it began.
    further = rounds(clients, 1, *words, "strategy.lr=2", initial=start).model
    assert {n: a.tolist() for n, a in further.items()} == {
        "cluster0:w": [1.875, 0.0],
        "cluster1:w": [0.0, 2.5],
        "cluster2:w": [1.0, 0.0],
    }
