"""The special case that each strategy reduces to: whole rounds over random models and data, compared to the bit where
arithmetic allows. What is compared with FedAvg is so twice: FedAvg itself is held against plain local training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.compression.layout import part
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, Tensors, add, content_hash, subtract
from fedpress.plan import load
from fedpress.server.strategies import Aggregate, build
from fedpress.server.tickets import training

SEEDS = st.integers(0, 2**32)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)
COHORTS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4)
#: What a lossy codec makes of an update is what both ends go by.
CODECS = st.sampled_from(["raw", "ef+ecsq:2"])
few = settings(max_examples=15, deadline=None)

#: What makes each strategy FedAvg: options, and whether its updates count alike.
REDUCTIONS = [
    (["strategy.name=fedprox", "strategy.mu=0"], False),
    (["strategy.name=moon", "strategy.mu=0"], False),
    (["strategy.name=feddyn", "strategy.alpha=0"], True),
    (["strategy.name=fedavgm", "strategy.beta=0"], False),
]


def same(one: Tensors, other: Tensors) -> bool:
    return content_hash(one) == content_hash(other)


def near(one: Tensors, other: Tensors, tolerance: float = 1e-6) -> None:
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("overrides", "alike"), REDUCTIONS, ids=lambda v: v[0] if isinstance(v, list) else "")
@few
@given(SEEDS, SIZES, st.sampled_from([0.0, 0.9]))
def test_it_is_fedavg_to_the_bit(
    rounds: Any, perceptrons: Any, overrides: list[str], alike: bool, seed: int, sizes: list[int], momentum: float
) -> None:
    trainers = perceptrons(seed, sizes)
    common = [f"train.momentum={momentum}", f"run.seed={seed}"]
    weighting = ["strategy.weighting=uniform"] * alike
    assert same(rounds(trainers, 3, *common, *overrides).weights, rounds(trainers, 3, *common, *weighting).weights)


@few
@given(SEEDS, SIZES)
def test_each_does_something_of_its_own(rounds: Any, perceptrons: Any, seed: int, sizes: list[int]) -> None:
    trainers = perceptrons(seed, [*sizes, 5, 12])
    plain = [rounds(trainers, 3, f"strategy.weighting={w}").weights for w in ("examples", "uniform")]
    for name in ("fedprox", "moon", "feddyn", "fedavgm", "scaffold", "fednova", "fedadagrad", "fedadam", "fedyogi"):
        found = rounds(trainers, 3, f"strategy.name={name}").weights
        assert not any(same(found, p) for p in plain), name


@few
@given(SEEDS, SIZES)
def test_scaffold_without_variates_is_fedavg_with_equal_weights(
    rounds: Any, perceptrons: Any, seed: int, sizes: list[int]
) -> None:
    trainers = perceptrons(seed, sizes)
    one = rounds(trainers, 1, "strategy.name=scaffold")
    assert same(one.weights, rounds(trainers, 1, "strategy.weighting=uniform").weights)


@few
@given(SEEDS, st.integers(1, 4), COHORTS, CODECS, st.booleans())
def test_scaffolds_variate_is_the_mean_of_its_clients(
    rounds: Any, perceptrons: Any, seed: int, clients: int, taking_part: list[list[bool]], codec: str, joining: bool
) -> None:
    trainers = perceptrons(seed, range(3, 3 + clients))
    cohorts = [[i for i in range(clients) if row[i]] or [0] for row in taking_part]
    said = ("strategy.name=scaffold", f"upload.codec={codec}")
    played = rounds(trainers, len(cohorts), *said, cohorts=cohorts, joining=joining)
    for name in played.weights:
        kept = [own.get(f"control:{name}", np.zeros_like(played.weights[name])) for own in here(played, joining)]
        np.testing.assert_allclose(played.model[f"control:{name}"], np.mean(kept, axis=0), atol=1e-5)


@few
@given(SEEDS, SIZES, st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([0.0, 0.5, 0.9]))
def test_fednova_with_equal_steps_is_fedavg(
    rounds: Any, perceptrons: Any, seed: int, sizes: list[int], steps: int, momentum: float
) -> None:
    trainers = perceptrons(seed, sizes)
    said = [f"train.max_steps={steps}", f"train.epochs={steps}", f"train.momentum={momentum}"]
    nova, plain = (rounds(trainers, 2, *said, f"strategy.name={n}").weights for n in ("fednova", "fedavg"))
    near(nova, plain)
    if momentum == 0 and steps in (1, 2, 4, 8):  # a division that rounds nothing
        assert same(nova, plain)


SMALL = st.lists(st.integers(1, 4), min_size=1, max_size=4)  # one batch each, the same in every round


@few
@given(SEEDS, SMALL)
def test_feddyn_of_a_small_alpha_adds_all_updates_so_far(
    rounds: Any, perceptrons: Any, seed: int, sizes: list[int]
) -> None:
    """Its limit is not FedAvg: clients train plainly, then ``model + mean + (the sum of all means so far)``."""
    trainers = perceptrons(seed, sizes)
    tiny, plain = ("strategy.name=feddyn", f"strategy.alpha={2.0**-20}"), "strategy.weighting=uniform"
    start = trainers[0].initial(0)
    first = subtract(rounds(trainers, 1, plain).weights, start)
    then = {n: a + 2 * first[n] for n, a in start.items()}
    near(rounds(trainers, 1, *tiny).weights, then)
    second = subtract(rounds(trainers, 1, plain, initial=then).weights, then)
    near(rounds(trainers, 2, *tiny).weights, {n: a + 2 * second[n] + first[n] for n, a in then.items()}, 1e-5)


@few
@given(SEEDS, st.integers(1, 4), COHORTS, CODECS, st.sampled_from([0.01, 0.5]), st.booleans())
def test_feddyns_h_is_the_mean_of_what_its_clients_keep(
    rounds: Any,
    perceptrons: Any,
    seed: int,
    clients: int,
    taking_part: list[list[bool]],
    codec: str,
    alpha: float,
    joining: bool,
) -> None:
    trainers = perceptrons(seed, range(3, 3 + clients))
    cohorts = [[i for i in range(clients) if row[i]] or [0] for row in taking_part]
    said = ("strategy.name=feddyn", f"strategy.alpha={alpha}", f"upload.codec={codec}")
    played = rounds(trainers, len(cohorts), *said, cohorts=cohorts, joining=joining)
    for name, h in part("", played.state).items():
        kept = [own.get(f"gradient:{name}", np.zeros_like(h)) for own in here(played, joining)]
        np.testing.assert_allclose(h, np.mean(kept, axis=0), atol=1e-6)


def here(played: Any, joining: bool) -> list[Tensors]:
    """What each enrolled client keeps."""
    return [own for own in played.own if own or not joining]


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_where_it_settles_is_the_optimum_of_all_whoever_joined_late(rounds: Any, bowl: Any, name: str) -> None:
    # a * (w - b) over (a, b) below is 0 at w = 14/6. Two clients come a round before the others.
    clients = [bowl(a, b) for a, b in ((2, 4), (1, -4), (1, 8), (2, 1))]
    cohorts = [[0], [1], *[[0, 1, 2, 3]] * 60]
    said = (f"strategy.name={name}", "train.lr=0.1", "train.epochs=3", *["strategy.alpha=0.5"] * (name == "feddyn"))
    for joining in (False, True):
        played = rounds(clients, len(cohorts), *said, cohorts=cohorts, joining=joining)
        assert played.weights["w"] == pytest.approx(14 / 6, abs=1e-3)


@few
@given(SEEDS, st.integers(1, 12), st.integers(1, 3))
def test_one_client_without_compression_is_local_training(
    rounds: Any, perceptrons: Any, seed: int, size: int, n: int
) -> None:
    trainer = perceptrons(seed, [size])[0]
    plan = load(None, ["train.batch_size=4"])
    model, local = trainer.initial(0), trainer.initial(0)
    for round_ in range(1, n + 1):
        rng = Stream.of(0, "client-0", round_, "train")
        model = add(model, subtract(trainer.train(model, training(plan, round_), rng).tensors, model))
        local = trainer.train(local, training(plan, round_), Stream.of(0, "client-0", round_, "train")).tensors
    assert same(rounds([trainer], n).weights, model)  # an update is a difference, added again
    for name in ("fedavg", "fednova", "scaffold"):
        near(rounds([trainer], n, f"strategy.name={name}").weights, local, 1e-5)


# -- the server's optimisers, over random mean updates -----------------------------------------------------------------

UPDATES = st.lists(
    st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32)),
    min_size=1,
    max_size=5,
)


def walk(updates: list[Array], *overrides: str) -> tuple[list[Array], Tensors]:
    """The changes of a model that begins at 0, and the last state."""
    strategy = build(load(None, ["upload.codec=raw", *overrides]))
    model: Tensors = {"w": np.zeros(3, np.float32)}
    state, changes = strategy.init(Spec.of(model)), []
    for update in updates:
        new, state = strategy.step(model, Aggregate({"w": update}, 2, 2), state)
        changes.append(new["w"] - model["w"])
        model = new
    return changes, state


def decayed(values: list[Array], beta: float) -> Array:
    """``sum(beta**(t - s) * values[s])``, in float64."""
    total = np.zeros_like(values[0], np.float64)
    for value in values:
        total = beta * total + value
    return total


@given(UPDATES, st.sampled_from([0.0, 0.5, 0.9]))
def test_fedavgm_moves_by_the_decayed_sum_of_updates(updates: list[Array], beta: float) -> None:
    changes, _ = walk(updates, "strategy.name=fedavgm", f"strategy.beta={beta}", "strategy.lr=0.5")
    np.testing.assert_allclose(changes[-1], 0.5 * decayed(updates, beta), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("fedadagrad", lambda updates, tau: tau**2 + decayed([u**2 for u in updates], 1.0)),
        ("fedadam", lambda updates, tau: 0.75 ** len(updates) * tau**2 + 0.25 * decayed([u**2 for u in updates], 0.75)),
    ],
)
@given(UPDATES, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.125, 1.0]))
def test_adaptive_steps_have_their_closed_form(
    name: str, second: Callable[[list[Array], float], Array], updates: list[Array], beta1: float, tau: float
) -> None:
    said = [f"strategy.name={name}", f"strategy.beta1={beta1}", f"strategy.tau={tau}", "strategy.lr=0.5"]
    changes, _ = walk(updates, *said, *["strategy.beta2=0.75"] * (name == "fedadam"))
    first = (1 - beta1) * decayed(updates, beta1)
    expected = 0.5 * first / (np.sqrt(second(updates, tau)) + tau)
    np.testing.assert_allclose(changes[-1], expected, atol=1e-5)


@given(UPDATES)
def test_yogi_grows_as_adagrad_and_shrinks_by_what_comes(updates: list[Array]) -> None:
    """Its v moves by a share of the square, towards the square: never by more, whatever v is."""
    states = [walk(updates[:n], "strategy.name=fedyogi", "strategy.beta2=0.75")[1] for n in range(len(updates) + 1)]
    for before, after, update in zip(states, states[1:], updates, strict=False):
        v, square = before["v:w"].astype(np.float64), update.astype(np.float64) ** 2
        np.testing.assert_allclose(after["v:w"], np.where(square > v, v + square / 4, v - square / 4), atol=1e-6)
        assert (after["v:w"] >= 0).all()
