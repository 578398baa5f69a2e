"""Ditto, pFedMe, APFL, Per-FedAvg, FedALA and IFCA at their ends: what each is there, mostly to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.learner import Learner
from fedpress.client.rules import rule
from fedpress.client.trainers.trainer import Trainer
from fedpress.compression.codec import Context
from fedpress.compression.grouped import per_group
from fedpress.compression.layout import begin, group, part, spec_of
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, Tensors, content_hash
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import domains
from fedpress.server.aggregate import Gathering
from fedpress.server.strategies import Arrival, build

SIZES = (11, 7, 16)
seeds = given(seed=st.integers(0, 100))
few = settings(max_examples=10)
#: Without which a model moves at a learning rate of 0 too.
_STILL = {"per-fedavg": ["strategy.inner=0"]}
#: What a server of these algorithms averages is one whole model, of the task's own names.
ONE_MODEL = ("ditto", "pfedme", "apfl", "per-fedavg", "fedala")


def hashes(models: list[Tensors]) -> list[str]:
    return [content_hash(m) for m in models]


@pytest.fixture(scope="module")
def play(rounds: Any, perceptrons: Any) -> Any:
    """``play(seed, n, name, *options)`` among three clients."""

    def go(seed: int, n: int, name: str, *options: str, sizes: tuple[int, ...] = SIZES, **more: Any) -> Any:
        words = [f"strategy.{o}" for o in options]
        return rounds(perceptrons(seed, sizes), n, f"strategy.name={name}", "train.epochs=2", *words, **more)

    return go


@seeds
@few
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ditto", ["lam=0.5", "personal_epochs=3"]),
        ("apfl", ["alpha=0.5"]),
        ("per-fedavg", ["variant=fo", "inner=0"]),
        ("per-fedavg", ["variant=hf", "inner=0"]),
        ("ifca", ["clusters=1"]),
    ],
)
def test_what_is_shared_is_fedavgs(play: Any, name: str, options: list[str], seed: int) -> None:
    cohorts = [[0, 1, 2], [0, 2], [1, 2]]
    played, plain = play(seed, 3, name, *options, cohorts=cohorts), play(seed, 3, "fedavg", cohorts=cohorts)
    shared = part("cluster0", played.model) if name == "ifca" else played.model
    assert content_hash(shared) == content_hash(plain.model)
    if name in ("ditto", "ifca"):  # what is reported is of the training that the update comes from
        told = [[{i: (r.steps, r.loss) for i, r in reports.items()} for reports in p.reports] for p in (played, plain)]
        assert told[0] == told[1]


@pytest.mark.parametrize("name", ONE_MODEL)
def test_what_is_personal_never_travels(play: Any, name: str) -> None:
    played = play(1, 2, name, "alpha=0.5") if name == "apfl" else play(1, 2, name)
    assert list(played.model) == list(played.personal[0])
    assert not set(played.model) & {n for own in played.own for n in own}
    assert len(set(hashes(played.personal))) == len(SIZES), "each its own"
    if name != "per-fedavg":
        assert all(played.own)


@seeds
@few
def test_ditto_without_a_pull_is_local_training(play: Any, perceptrons: Any, seed: int) -> None:
    played = play(seed, 3, "ditto", "lam=0", cohorts=[[0, 2], [1], [0, 1, 2]])
    training = pb.Training(epochs=2, batch_size=4, optimizer="sgd", lr=0.1)
    for i, trainer in enumerate(perceptrons(seed, SIZES)):
        model = trainer.initial(0)
        for round_ in (1, 3) if i != 1 else (2, 3):
            rng = Stream.of(0, f"client-{i}", round_, "train")
            trainer.train(model, training, rng)  # the shared fit, which draws first
            model = trainer.train(model, training, rng).tensors
        assert content_hash(played.personal[i]) == content_hash(model)


@seeds
@few
def test_pfedme_without_a_pull_trains_alone_from_a_model_that_never_moves(
    play: Any, perceptrons: Any, seed: int
) -> None:
    played = play(seed, 2, "pfedme", "lam=0", "inner=1")
    start = perceptrons(seed, SIZES)[0].initial(0)
    assert content_hash(played.model) == content_hash(start)
    training = pb.Training(epochs=2, batch_size=4, optimizer="sgd", lr=0.1)
    for i, trainer in enumerate(perceptrons(seed, SIZES)):
        plain = trainer.train(start, training, Stream.of(0, f"client-{i}", 2, "train")).tensors
        assert content_hash(played.personal[i]) == content_hash(plain)


@seeds
@few
def test_pfedme_of_one_step_that_goes_all_the_way_is_fedavg(play: Any, seed: int) -> None:
    # With K = 1 the pull is 0 at theta = w; with eta * lam = 1 the copy goes where theta went.
    played, plain = play(seed, 3, "pfedme", "lam=1", "eta=1", "inner=1"), play(seed, 3, "fedavg")
    for name, array in plain.model.items():
        np.testing.assert_allclose(played.model[name], array, atol=1e-6)


@seeds
@few
def test_apfl_is_the_shared_model_with_0_and_local_training_with_1(play: Any, perceptrons: Any, seed: int) -> None:
    shared = play(seed, 3, "apfl", "alpha=0")
    assert set(hashes(shared.personal)) == {content_hash(shared.model)}
    alone = play(seed, 3, "apfl", "alpha=1", cohorts=[[0, 2], [0, 1, 2], [0, 1, 2]])
    training = pb.Training(epochs=2, batch_size=4, optimizer="sgd", lr=0.1)
    for i, trainer in enumerate(perceptrons(seed, SIZES)):
        model = trainer.initial(0)
        for round_ in (1, 2, 3) if i != 1 else (2, 3):
            model = trainer.train(model, training, Stream.of(0, f"client-{i}", round_, "train")).tensors
        assert content_hash(alone.personal[i]) == content_hash(model)


@seeds
@few
def test_apfls_alpha_stays_a_share_and_is_each_clients_own(play: Any, seed: int) -> None:
    played = play(seed, 4, "apfl", "alpha=0.5", "adaptive=true")
    found = [float(own["apfl:alpha"]) for own in played.own]
    assert all(0 <= alpha <= 1 for alpha in found)
    assert len(set(found)) == len(SIZES)


@seeds
@few
@pytest.mark.parametrize("variant", ["fo", "hf"])
def test_per_fedavg_takes_each_of_its_gradients_on_a_batch_of_another_shuffle(
    perceptrons: Any, variant: str, seed: int
) -> None:
    inner, delta, lr = 0.5, 0.25, 0.1
    trainer = perceptrons(seed, SIZES)[0]
    training = pb.Training(epochs=2, batch_size=4, optimizer="sgd", lr=lr)
    said = pb.Rule(name=f"per-fedavg-{variant}", options={"inner": inner, "delta": delta})
    start, ours, theirs = trainer.initial(0), *(Learner(trainer, training, Stream(seed), 0) for _ in range(2))
    outcome = rule(said).train(start, {}, ours)

    def slope(at: Tensors, rows: Any) -> tuple[Tensors, float]:
        return theirs.gradient(theirs.point(at), rows)

    def went(at: Tensors, by: float, direction: Tensors) -> Tensors:
        return {n: a + np.float32(by) * direction[n] for n, a in at.items()}

    draws = [list(theirs.batches()) for _ in range(3)]
    model, losses = start, []
    for second, first, third in zip(*draws, strict=True):
        gradient, loss = slope(went(model, -inner, slope(model, first)[0]), second)
        losses += [loss] * len(second)
        if variant == "hf":
            above, below = (slope(went(model, by, gradient), third)[0] for by in (delta, -delta))
            gradient = {n: g - inner * (above[n] - below[n]) / (2 * delta) for n, g in gradient.items()}
        model = went(model, -lr, gradient)
    for name, array in model.items():
        np.testing.assert_allclose(outcome.shared[name], array, atol=1e-5)
    assert outcome.loss == pytest.approx(np.mean(losses), rel=1e-4)
    first, *_ = theirs.batches(1)
    used = went(start, -inner, slope(start, first)[0])
    for name, array in rule(said).personal(start, {}, ours).items():
        np.testing.assert_allclose(array, used[name], atol=1e-6)


@pytest.mark.parametrize("name", ["pfedme", "apfl", "per-fedavg"])
def test_the_loss_is_the_mean_over_examples_whatever_the_batches(perceptrons: Any, name: str) -> None:
    (trainer,), strategy = perceptrons(0, (10,)), build(load(None, [f"strategy.name={name}", *_STILL.get(name, [])]))
    training = pb.Training(epochs=1, batch_size=4, optimizer="sgd", lr=0.0)  # batches of 4, 4 and 2, the same model
    start, learner = trainer.initial(0), Learner(trainer, training, Stream(0), 0)
    outcome = rule(strategy.rule(trainer.spec)).train(start, {}, learner)
    assert outcome.loss == pytest.approx(learner.loss(start), rel=1e-5)


@seeds
@few
def test_fedala_with_weights_of_1_takes_the_shared_model(play: Any, seed: int) -> None:
    played = play(seed, 3, "fedala", "rate=0", "layers=2")
    assert set(hashes(played.personal)) == {content_hash(played.model)}
    assert all((own[n] == 1).all() for own in played.own for n in own if group(n) == "weights")
    learned = play(seed, 3, "fedala", "rate=1")
    for own, personal in zip(learned.own, learned.personal, strict=True):
        assert set(own) == {"local:head.weight", "local:head.bias", "weights:head.weight", "weights:head.bias"}
        assert all(((own[n] >= 0) & (own[n] <= 1)).all() for n in own if group(n) == "weights")
        assert content_hash(part("", {"w": personal["body.weight"]})) == content_hash(
            {"w": learned.model["body.weight"]}
        )


@pytest.mark.parametrize("name", ["pfedme", "apfl", "per-fedavg", "fedala", "ifca"])
def test_rules_mean_the_same_on_numpys_arrays_and_torchs(name: str, rounds: Any, perceptrons: Any) -> None:
    import torch

    from fedpress.client.trainers.torch_trainer import TorchTrainer
    from fedpress.task import ClientData, Split, Task

    class Perceptron(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(torch.relu(self.body(x)))
            return logits

    numbers = perceptrons(3, SIZES)
    start = numbers[0].initial(0)

    class Same(TorchTrainer):
        def initial(self, seed: int) -> dict[str, Array]:
            return dict(start)

    def torches() -> list[Trainer]:
        made: list[Trainer] = []
        for client, size in enumerate(SIZES):  # the data of the fixture
            rng = Stream.of(3, "data", client)
            x, y = rng.uniform(4 * size).reshape(size, 4) - np.float32(0.5), rng.u64(size) % np.uint64(3)
            split = Split(x, y.astype(np.int64))
            task = Task(
                "perceptron",
                Perceptron,
                lambda _, split=split: (split, split),  # type: ignore[misc, arg-type]
                torch.nn.functional.cross_entropy,
                lambda outputs, targets: {},
            )
            made.append(Same(task, ClientData(split, split), 0, "cpu"))
        return made

    words = [f"strategy.name={name}", "train.epochs=2"]
    words += {"apfl": ["strategy.adaptive=true"], "per-fedavg": ["strategy.variant=hf"]}.get(name, [])
    one, other = rounds(numbers, 2, *words), rounds(torches(), 2, *words)
    for label, a in one.model.items():
        np.testing.assert_allclose(a, other.model[label], atol=2e-4)
    for mine, theirs in zip(one.own, other.own, strict=True):
        assert list(mine) == list(theirs)
        for label, a in mine.items():
            np.testing.assert_allclose(a, theirs[label], atol=2e-3)


# -- IFCA's groups -----------------------------------------------------------------------------------------------------

FULL = Spec.of({"w": np.zeros((40, 30), np.float32), "b": np.zeros(40, np.float32)})
IFCA = build(load(None, ["strategy.name=ifca", "strategy.clusters=3", "strategy.lr=1"]))


def changed(cluster: int, seed: int) -> dict[str, Array]:
    """An update of one cluster."""
    rng = np.random.default_rng(seed)
    return {
        t.name: (rng.laplace(size=t.shape) * (group(t.name) == f"cluster{cluster}")).astype(np.float32)
        for t in spec_of(IFCA.layout(FULL), FULL)
    }


@pytest.mark.parametrize("text", ["ef:0.9+predict:0.5+ecsq:3", "ef21:0.5+topk:0.1+int8", "dgc:0.7+ecsq:6", "int4"])
def test_a_cluster_that_was_not_chosen_costs_a_byte_and_keeps_its_residual(text: str) -> None:
    codec, spec = parse(text), spec_of(IFCA.layout(FULL), FULL)
    step = {n: a + np.float32(1) for n, a in changed(0, 9).items()}  # what a prediction would be from
    coded = per_group(codec, spec)
    state, memory = coded.init(spec), coded.memory(spec)
    for round_, chosen in enumerate((0, 1, 0, 2), start=1):
        context, before = Context(1, round_, step), state
        update = changed(chosen, round_)
        payload, state = seal(codec, update, state, context, Stream(round_))
        found, memory = unseal(codec, payload, memory, context, spec)
        for label in ("cluster0", "cluster1", "cluster2"):
            still = label != f"cluster{chosen}"
            assert (not any(a.any() for a in part(label, found).values())) == still
            kept = [{n: a for n, a in s.items() if n.startswith(f"{label}/")} for s in (before, state)]
            assert not kept[0] or all(np.array_equal(a, kept[1][n]) for n, a in kept[0].items()) == still
        alone = {n: a for n, a in update.items() if group(n) == f"cluster{chosen}"}
        own = {n.partition("/")[2]: a for n, a in before.items() if n.startswith(f"cluster{chosen}/")}
        mine = {n: a for n, a in step.items() if n in alone}
        single, _ = seal(codec, alone, own, Context(1, round_, mine), Stream(round_))
        assert len(payload) <= len(single) + 5, "two bytes of two groups, and a length of three at most"


def test_ifca_takes_no_word_on_other_clusters_and_no_vote_that_means_nothing() -> None:
    spec = spec_of(IFCA.layout(FULL), FULL)
    model = begin(IFCA.layout(FULL), {"w": np.ones((40, 30), np.float32), "b": np.ones(40, np.float32)})
    gathering = Gathering(spec)
    everywhere = {n: np.ones_like(a) for n, a in model.items()}
    for cluster, examples in ((0.0, 1), (0.0, 3), (2.0, 4)):
        arrival = Arrival(pb.Report(examples=examples, facts={"cluster": cluster}), pb.Training(), 0, dict, dict)
        gathering.fold(domains.read(IFCA, spec, everywhere, arrival), IFCA.share(arrival))
    after, _ = domains.step(IFCA, spec, model, gathering.aggregate(3), {})
    for label, moved in (("cluster0", 1), ("cluster1", 0), ("cluster2", 1)):
        assert all((part(label, after)[n] == part(label, model)[n] + moved).all() for n in ("w", "b"))
    for facts in ({}, {"cluster": 3.0}, {"cluster": -1.0}, {"cluster": 0.5}):
        arrival = Arrival(pb.Report(examples=1, facts=facts), pb.Training(), 0, dict, dict)
        assert IFCA.share(arrival).weight == 0


def test_ifca_draws_weights_anew_for_each_cluster_and_averages_its_statistics_by_cluster() -> None:
    start = {n: np.arange(1, 21, dtype=np.float32) for n in ("w", "running_var", "base")}
    full = Spec.of(start, {"running_var": "statistic", "base": "frozen"})
    layout = IFCA.layout(full)
    spec, model = spec_of(layout, full), begin(layout, start)
    for n, same in (("w", False), ("running_var", True), ("base", True)):
        assert all(np.array_equal(model[f"cluster{i}:{n}"], start[n]) == same for i in (1, 2))
    gathering = Gathering(domains.moving(spec))
    for cluster, change in ((0, 1.0), (0, 3.0), (1, 5.0)):
        arrival = Arrival(pb.Report(examples=1, facts={"cluster": cluster}), pb.Training(), 0, dict, dict)
        update = {n: np.full_like(a, change) for n, a in model.items()}
        gathering.fold(domains.read(IFCA, spec, update, arrival), IFCA.share(arrival))
    after, _ = domains.step(IFCA, spec, model, gathering.aggregate(3), {})
    for cluster, change in enumerate((2.0, 5.0, 0.0)):
        for n in start:
            expected = model[f"cluster{cluster}:{n}"] + np.float32(change * (n != "base"))
            assert np.array_equal(after[f"cluster{cluster}:{n}"], expected)


def test_of_a_cluster_nothing_is_personal() -> None:
    assert not IFCA.rule(FULL).personal


def test_no_examples_are_no_update_and_no_fault(perceptrons: Any) -> None:
    trainer = perceptrons(0, (0,))[0]
    start = trainer.initial(0)
    for name in (*ONE_MODEL, "ifca"):
        strategy = build(load(None, [f"strategy.name={name}"]))
        said, layout = strategy.rule(trainer.spec), strategy.layout(trainer.spec)
        learner = Learner(trainer, pb.Training(epochs=1, batch_size=4, optimizer="sgd", lr=0.1), Stream(0), 0)
        arrived = begin(layout, start)
        outcome = rule(said).train(arrived, {}, learner)
        assert outcome.examples == 0
        assert all(np.array_equal(a, arrived[n]) for n, a in outcome.shared.items())
        assert content_hash(rule(said).personal(arrived, outcome.own, learner)) == content_hash(start)
