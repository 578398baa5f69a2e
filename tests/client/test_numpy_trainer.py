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
from fedpress.errors import PlanError
from fedpress.params import Spec, Tensors, content_hash
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData

SGD = pb.Training(epochs=1, batch_size=64, optimizer="sgd", lr=0.1)


@pytest.fixture(scope="module")
def pair() -> tuple[Differentiable, Differentiable]:
    task = load_task("digits")
    everything = task.data(Path())
    data = ClientData(everything.train.take(np.arange(300)), everything.test)
    torch, numpy = TorchTrainer(task, data, 0, "cpu"), registry.make("numpy", task, data, 0)
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
