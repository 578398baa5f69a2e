from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpress import torch_model
from fedpress.client.learner import Learner
from fedpress.client.trainers import registry
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.trainers.trainer import Terms, Trainer
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError
from fedpress.params import content_hash, finite, subtract
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData, Split, Task

SGD = pb.Training(epochs=1, batch_size=32, optimizer="sgd", lr=0.1)


def training(**changes: Any) -> pb.Training:
    made = pb.Training()
    made.CopyFrom(SGD)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def data(task: Task) -> ClientData:
    everything = task.data(Path())
    return ClientData(everything.train, everything.test)


@pytest.fixture
def trainer(task: Task, data: ClientData) -> TorchTrainer:
    return TorchTrainer(task, data, seed=0, device="cpu")


def test_it_learns_digits(trainer: TorchTrainer, data: ClientData) -> None:
    trained = trainer.train(trainer.initial(0), training(epochs=5, momentum=0.9), Stream(1))
    metrics, examples = trainer.evaluate(trained.tensors)
    assert metrics["accuracy"] > 0.93
    assert examples == len(data.held_out)
    assert trained.examples == len(data.train)
    assert trained.steps == 5 * -(-len(data.train) // 32)
    assert trained.spent is None


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_same_stream_gives_the_same_bits_and_another_one_does_not(
    task: Task, data: ClientData, optimizer: str
) -> None:
    def once(key: int) -> str:
        made = TorchTrainer(task, data, seed=0, device="cpu")
        torch.rand(7)  # whatever else was drawn in this process
        said = training(optimizer=optimizer, lr=0.01, max_steps=5, weight_decay=0.01)
        return content_hash(made.train(made.initial(0), said, Stream(key)).tensors)

    assert once(1) == once(1) != once(2)


def test_training_leaves_the_model_it_was_given_and_torchs_random_state_alone(trainer: TorchTrainer) -> None:
    model = trainer.initial(0)
    before, state = content_hash(model), torch.get_rng_state()
    first = trainer.train(model, training(max_steps=3), Stream(1))
    assert content_hash(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert content_hash(trainer.train(model, training(max_steps=3), Stream(1)).tensors) == content_hash(first.tensors)


def test_the_initial_model_depends_on_the_seed_alone(trainer: TorchTrainer, task: Task, data: ClientData) -> None:
    other = TorchTrainer(task, data, seed=99, device="cpu")
    assert content_hash(trainer.initial(3)) == content_hash(other.initial(3)) != content_hash(trainer.initial(4))
    trainer.spec.check(trainer.initial(3))


def test_max_steps_and_a_bound_on_gradients_hold(trainer: TorchTrainer) -> None:
    model = trainer.initial(0)
    trained = trainer.train(model, training(epochs=9, max_steps=1, max_grad_norm=0.01, lr=1.0), Stream(1))
    moved = subtract(trained.tensors, model)
    assert trained.steps == 1
    assert np.sqrt(sum(float(np.square(a).sum()) for a in moved.values())) == pytest.approx(0.01, rel=1e-3)


def test_each_epoch_sees_every_example_once_and_no_batch_is_a_single_example(task: Task, data: ClientData) -> None:
    sizes: list[int] = []

    class Watching(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    watched = Task("watched", lambda: Watching(64, 10), task.data)
    few = ClientData(data.train.take(np.arange(33)), data.held_out)
    TorchTrainer(watched, few, 0, "cpu").train(
        TorchTrainer(watched, few, 0, "cpu").initial(0), training(epochs=2, batch_size=16), Stream(1)
    )
    assert sizes == [16, 17, 16, 17]


def test_a_client_without_data_returns_the_model_with_no_weight(task: Task, data: ClientData) -> None:
    nothing = ClientData(data.train.take(np.arange(0)), data.held_out.take(np.arange(0)))
    made = TorchTrainer(task, nothing, 0, "cpu")
    trained = made.train(made.initial(0), SGD, Stream(1))
    assert (trained.examples, trained.steps) == (0, 0)
    assert content_hash(trained.tensors) == content_hash(made.initial(0))
    assert made.evaluate(made.initial(0)) == ({}, 0)


def test_floating_point_buffers_travel_and_scalars_keep_their_shape(data: ClientData) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 10))
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layers(x) * self.scale
            return out

    made = TorchTrainer(Task("net", Net, lambda _: None), data, 0, "cpu")  # type: ignore[arg-type, return-value]
    model = made.initial(0)
    after = made.train(model, training(max_steps=3), Stream(1)).tensors
    assert made.spec.names[0] == "scale"
    assert made.spec.kinds == {"layers.1.running_mean": "statistic", "layers.1.running_var": "statistic"}
    assert after["scale"].shape == ()
    assert not np.array_equal(after["layers.1.running_mean"], model["layers.1.running_mean"])


def test_parameters_that_ask_for_no_gradient_are_frozen_under_each_of_their_names() -> None:
    module = torch.nn.ModuleDict({n: torch.nn.Linear(2, 2, bias=False) for n in ("free", "tied", "still")})
    module["tied"].weight = module["free"].weight
    module["still"].requires_grad_(False)
    assert torch_model.spec_of(module).named("weight") == ("free.weight", "tied.weight")
    assert torch_model.spec_of(module).kinds == {"still.weight": "frozen"}


def test_what_a_task_froze_stays_frozen_whatever_is_trained_by_itself(data: ClientData) -> None:
    def model() -> torch.nn.Module:
        module = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 10))
        module[0].requires_grad_(False)
        return module

    made = TorchTrainer(Task("frozen", model, lambda _: None), data, 0, "cpu")  # type: ignore[arg-type, return-value]
    begun = made.initial(0)
    head = made.train(begun, training(max_steps=3), Stream(1), terms=Terms(only=["2.weight"])).tensors
    assert [n for n in begun if not np.array_equal(head[n], begun[n])] == ["2.weight"]
    whole = made.train(begun, training(max_steps=3), Stream(1)).tensors
    assert [n for n in begun if np.array_equal(whole[n], begun[n])] == ["0.weight", "0.bias"]


def test_an_unknown_optimiser_is_refused_by_name(trainer: TorchTrainer) -> None:
    with pytest.raises(PlanError, match=r"'adamm'\. Did you mean 'adam"):
        trainer.train(trainer.initial(0), training(optimizer="adamm"), Stream(1))


def test_a_ticket_that_makes_no_sense_is_refused(trainer: TorchTrainer) -> None:
    for nonsense in ({"batch_size": 0}, {"lr": -1.0}, {"lr": float("nan")}):
        with pytest.raises(PlanError, match="from the server"):
            trainer.train(trainer.initial(0), training(**nonsense), Stream(1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_said_before_anything_starts(task: Task, data: ClientData) -> None:
    with pytest.raises(PlanError, match=r"train\.device"):
        TorchTrainer(task, data, seed=0, device="cuda")


def test_the_idle_trainer_takes_a_small_step_that_only_the_stream_decides() -> None:
    made = IdleTrainer.of_size(12_345)
    assert made.spec.size == 12_345
    model = made.initial(0)
    one, two, three = (made.train(model, SGD, Stream(key)) for key in (1, 1, 2))
    moved = subtract(one.tensors, model)
    assert finite(moved)
    assert 0 < max(float(np.abs(a).max()) for a in moved.values()) <= 1.01e-3
    assert content_hash(one.tensors) == content_hash(two.tensors) != content_hash(three.tensors)
    assert (one.examples, one.steps) == (1, 1)


@pytest.mark.parametrize("size", [1, 2, 10, 1_000])
def test_idle_models_have_the_size_asked_for(size: int) -> None:
    made = IdleTrainer.of_size(size)
    assert made.spec.size == size
    made.spec.check(made.train(made.initial(0), SGD, Stream(0)).tensors)


def test_the_registry_makes_trainers_by_name(task: Task, data: ClientData) -> None:
    made: list[Trainer] = [registry.make(name, task, data, seed=0, device="cpu") for name in registry.TRAINERS]
    assert [trainer.name for trainer in made] == list(registry.TRAINERS) == list(registry.available())
    assert all(trainer.spec == torch_model.spec_of(torch_model.build(task, 0)) for trainer in made)
    with pytest.raises(PlanError, match="Did you mean 'torch'"):
        registry.make("torhc", task, data, seed=0)


def test_an_integer_input_reaches_the_model_as_integers() -> None:
    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layers(x)
            return out

    x = np.arange(60).reshape(12, 5) % 5
    words = ClientData(Split(x, x), Split(x[:2], x[:2]))
    made = TorchTrainer(Task("words", Embedding, lambda _: None), words, 0, "cpu")  # type: ignore[arg-type, return-value]
    before = made.evaluate(made.initial(0))[0]["loss"]
    after = made.evaluate(made.train(made.initial(0), training(epochs=20, batch_size=4), Stream(0)).tensors)[0]["loss"]
    assert after < 0.7 * before


class _Counting(torch.nn.Module):
    """Averages over all batches since the beginning, counts its passes, and adds what it counted."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = torch.nn.BatchNorm1d(64, momentum=None), torch.nn.Linear(64, 10)
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes = self.passes + 1
        out: torch.Tensor = self.last(self.norm(x) + self.passes / 100)
        return out


def test_what_a_ticket_comes_to_does_not_depend_on_earlier_ones(data: ClientData) -> None:
    """Neither plain training, nor a rule's own steps, nor a measure."""
    task = Task("counting", _Counting, lambda _: None)  # type: ignore[arg-type, return-value]
    used, fresh = (TorchTrainer(task, data, 0, "cpu") for _ in range(2))
    model, said = used.initial(0), training(max_steps=3)

    def own(made: TorchTrainer) -> tuple[str, ...]:
        learner = Learner(made, said, Stream(3), 0)
        point = learner.point(model)
        for rows in learner.batches():
            gradients, _ = learner.gradient(point, rows)
            for name, gradient in gradients.items():
                point[name] = point[name] - 0.1 * gradient
        return content_hash(learner.tensors(point)), content_hash(made.train(model, said, Stream(4)).tensors)

    own(used)
    assert used.evaluate(model) == fresh.evaluate(model)
    assert used.loss(model) == fresh.loss(model)
    assert own(used) == own(fresh)
    means = used.train(model, said, Stream(4)).tensors["norm.running_mean"]
    once = used.train(model, training(max_steps=1), Stream(4)).tensors["norm.running_mean"]
    assert not np.array_equal(means, once), "it counts within a ticket"
