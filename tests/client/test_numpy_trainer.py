"""Two trainers, one arithmetic: what a rule asks of NumPy's and of torch's comes out the same, up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.client.learner import Learner
from fedpress.client.rules.fedprox import proximal
from fedpress.client.trainers import registry
from fedpress.client.trainers.numpy_network import Network
from fedpress.client.trainers.numpy_trainer import NumpyTrainer
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.trainers.trainer import Contrast, Differentiable, Point, Terms
from fedpress.compression.stream import Stream
from fedpress.errors import BudgetSpent, PlanError
from fedpress.params import Spec, Tensors, content_hash
from fedpress.plan import load
from fedpress.privacy.accounting import Steps
from fedpress.privacy.dpsgd import Mechanism
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData, Split

SGD = pb.Training(epochs=1, batch_size=64, optimizer="sgd", lr=0.1)


@pytest.fixture(scope="module")
def pair() -> tuple[Differentiable, Differentiable]:
    task = load_task("digits")
    everything = task.data(Path())
    data = ClientData(everything.train.take(np.arange(300)), everything.test)
    torch = TorchTrainer(task, data, 0, "cpu", secret_noise=False)
    numpy = registry.make("numpy", task, data, 0, secret_noise=False)
    assert isinstance(numpy, NumpyTrainer)
    return torch, numpy


def near(one: Tensors, other: Tensors) -> bool:
    return list(one) == list(other) and all(np.allclose(a, other[n], atol=2e-5) for n, a in one.items())


def pulled(z: Any, other: Any) -> Any:
    return 0.01 * (z - other)


def test_plain_training_agrees(pair: tuple[Differentiable, Differentiable]) -> None:
    torch, numpy = pair
    model = torch.initial(0)
    assert content_hash(model) == content_hash(numpy.initial(0))
    for said in (SGD, pb.Training(epochs=2, batch_size=50, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3)):
        said.max_grad_norm = 0.5
        one, other = (made.train(model, said, Stream(3)) for made in pair)
        assert near(one.tensors, other.tensors)
        assert (one.steps, one.examples) == (other.steps, other.examples)
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert not near(one.tensors, model)


def test_terms_act_alike(pair: tuple[Differentiable, Differentiable]) -> None:
    model, far = pair[0].initial(0), pair[0].initial(1)
    head = [n for n in model if n.startswith("head")]
    for terms_of in (
        lambda made: Terms(proximal(0.7, made.point(far))),
        lambda made: Terms(only=head),
        lambda made: Terms(contrast=Contrast((far,), pulled)),
    ):
        one, other = (made.train(model, SGD, Stream(3), None, (), terms_of(made)).tensors for made in pair)
        assert near(one, other)
        assert not near(one, pair[0].train(model, SGD, Stream(3)).tensors)


@pytest.mark.parametrize("clipping", ["", "per-layer", "ghost"])
@pytest.mark.parametrize("only", [None, ["head.weight", "head.bias"]])
def test_private_training_agrees(
    pair: tuple[Differentiable, Differentiable], clipping: str, only: list[str] | None
) -> None:
    """The same seeded noise and draws, empty ones included, so the same model; and the same is spent."""
    model, far = pair[0].initial(0), pair[0].initial(1)
    said = pb.Training(epochs=1, batch_size=1, max_steps=12, optimizer="sgd", lr=0.3, momentum=0.5, weight_decay=1e-3)
    privacy = pb.LocalPrivacy(noise_multiplier=0.3, clip_norm=0.2, delta=1e-5, clipping=clipping)
    one, other = (
        made.train(model, said, Stream(3), privacy, (), Terms(proximal(0.7, made.point(far)), only)) for made in pair
    )
    assert near(one.tensors, other.tensors)
    assert not near(one.tensors, model)
    assert one.loss == pytest.approx(other.loss, abs=1e-5)
    assert (one.steps, one.spent) == (other.steps, other.spent) == (12, Steps(0.3, 1 / 300, 12))


@pytest.mark.parametrize("clipping", ["", "per-layer"])
def test_private_steps_of_ones_own_agree(pair: tuple[Differentiable, Differentiable], clipping: str) -> None:
    model = pair[0].initial(0)
    privacy = pb.LocalPrivacy(noise_multiplier=0.3, clip_norm=0.2, delta=1e-5, clipping=clipping)
    found, spent = [], []
    for made in pair:
        learner = Learner(made, SGD, Stream(3), 0, privacy)
        point = learner.point(model)
        for rows in learner.batches():
            for _ in range(2):
                gradients, loss = learner.gradient(point, rows)
                assert loss == 0.0, "it is private, and no noise hides it"
                for name in gradients:
                    point[name] -= 0.1 * gradients[name]
        found.append(learner.tensors(point))
        spent.append(learner.history)
    assert near(found[0], found[1])
    assert not near(found[0], model)
    assert spent[0] == spent[1] == (Steps(0.3 / 2**0.5, 1 / 5, 5),)


def test_numpy_noise_has_the_scale_it_must_have_and_a_draw_of_nobody_is_noise_too() -> None:
    shapes = {"a.weight": (40, 50), "a.bias": (40,)}
    split = Split(np.zeros((16, 50), np.float32), np.arange(16) % 40)
    made = NumpyTrainer(lambda seed: {n: np.zeros(s, np.float32) for n, s in shapes.items()}, ClientData(split, split))
    privacy = pb.LocalPrivacy(noise_multiplier=2.0, clip_norm=0.5, delta=1e-5)
    said = pb.Training(epochs=1, batch_size=8, max_steps=1, optimizer="sgd", lr=1.0)
    moved = made.train(made.initial(0), said, Stream(1), privacy).tensors["a.weight"]
    assert moved.std() == pytest.approx(2.0 * 0.5 / 8, rel=0.06)
    again = made.train(made.initial(0), said, Stream(1), privacy).tensors["a.weight"]
    assert not np.array_equal(moved, again), "secret by default"
    guard = Mechanism(2.0, 0.5, "flat", 0.5, 16, Noise.seeded(Stream(1)))
    alone, _ = made.gradient(made.point(made.initial(0)), np.arange(0), Stream(1), guard)
    assert alone["a.weight"].std() == pytest.approx(2.0 * 0.5 / 8, rel=0.06)


def test_numpy_refuses_what_it_cannot_pay_before_it_trains(pair: tuple[Differentiable, Differentiable]) -> None:
    privacy = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5, max_epsilon=0.1)
    for made in pair:
        with pytest.raises(BudgetSpent):
            made.train(made.initial(0), SGD, Stream(1), privacy)


def test_only_what_is_named_is_trained(pair: tuple[Differentiable, Differentiable]) -> None:
    model = pair[0].initial(0)
    for made in pair:
        after = made.train(model, SGD, Stream(3), None, (), Terms(only=["head.weight"])).tensors
        assert [n for n in model if not np.array_equal(after[n], model[n])] == ["head.weight"]
        again = made.train(model, SGD, Stream(3)).tensors
        assert all(not np.array_equal(again[n], model[n]) for n in model), "nothing stays frozen"


def test_steps_of_ones_own_are_those_of_plain_training(pair: tuple[Differentiable, Differentiable]) -> None:
    model = pair[0].initial(0)
    for made in pair:
        learner = Learner(made, SGD, Stream(3), seed=0)
        point, losses = learner.point(model), []
        for rows in learner.batches():
            gradients, loss = learner.gradient(point, rows)
            losses.append(loss * len(rows))
            for name in gradients:
                point[name] -= 0.1 * gradients[name]
        trained = made.train(model, SGD, Stream(3))
        assert near(learner.tensors(point), trained.tensors)
        assert sum(losses) / made.examples == pytest.approx(trained.loss, abs=1e-5)
        assert made.loss(trained.tensors) < made.loss(model)


def test_a_gradient_is_taken_where_it_is_asked_for_and_moves_nothing(
    pair: tuple[Differentiable, Differentiable],
) -> None:
    model, far = pair[0].initial(0), pair[0].initial(1)
    rows = np.arange(40)
    found: list[Mapping[str, Any]] = []
    for made in pair:
        point: Point = made.point(far)
        made.evaluate(model)
        gradients, _ = made.gradient(point, rows, Stream(1))
        assert content_hash(made.tensors(point)) == content_hash(far)
        for name in gradients:
            point[name] -= gradients[name]
        assert content_hash(made.train(model, SGD, Stream(1)).tensors) == content_hash(
            made.train(model, SGD, Stream(1)).tensors
        )
        found.append(made.tensors(gradients))
    assert near(found[0], found[1])


def test_what_it_cannot_train_is_refused_by_name() -> None:
    def spec(**shapes: tuple[int, ...]) -> Spec:
        return Spec.of({n.replace("_", "."): np.zeros(s, np.float32) for n, s in shapes.items()})

    assert Network.of(spec(a_weight=(4, 3), a_bias=(4,), b_weight=(2, 4), b_bias=(2,))).layers == ("a", "b")
    for bad in (
        spec(a_weight=(4, 3), a_bias=(4,), b_weight=(2, 5), b_bias=(2,)),
        spec(a_weight=(4, 3, 3, 3), a_bias=(4,)),
        spec(a_weight=(4, 3)),
        spec(),
    ):
        with pytest.raises(PlanError, match=r"linear layers.*train\.trainer"):
            Network.of(bad)
    with pytest.raises(PlanError, match="adam"):
        load(None, ["train.trainer=numpy", "train.optimizer=adam"])
