"""What the personalised strategies are in terms of one another and of plain training: to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.learner import Learner
from fedpress.client.rules import Outcome, rule
from fedpress.client.trainers.trainer import Terms, Trainer
from fedpress.compression.stream import Stream
from fedpress.params import Tensors, content_hash
from fedpress.protos import fleet_pb2 as pb

TRAINING = pb.Training(epochs=2, batch_size=4, optimizer="sgd", lr=0.25)
HEAD, BODY = ["head.weight", "head.bias"], ["body.weight", "body.bias"]
SIZES = (11, 7, 16)


def of(tensors: Tensors, names: list[str]) -> str:
    """The name of some tensors' bits."""
    return content_hash({n: tensors[n] for n in names})


def learner(trainer: Trainer) -> Learner:
    return Learner(trainer, TRAINING, Stream(3), seed=0)


def one(trainer: Trainer, said: pb.Rule, own: Tensors) -> Outcome:
    """One round's local work of a rule, from the seed's model."""
    start = trainer.initial(0)
    return rule(said).train({n: start[n] for n in start if n not in said.personal}, own, learner(trainer))


@pytest.fixture
def client(perceptrons: Any) -> Trainer:
    made: Trainer = perceptrons(1, SIZES)[0]
    return made


@pytest.fixture
def own(client: Trainer) -> Tensors:
    """A head of this client's."""
    return {n: client.initial(9)[n] for n in HEAD}


def test_fedper_is_plain_training_whose_result_is_split(client: Trainer, own: Tensors) -> None:
    outcome = one(client, pb.Rule(name="fedavg", personal=HEAD), own)
    plain = client.train({**client.initial(0), **own}, TRAINING, Stream(3)).tensors
    assert of(outcome.shared, BODY) == of(plain, BODY)
    assert of(outcome.own, HEAD) == of(plain, HEAD)
    assert list(outcome.own) == HEAD


def test_fedrep_is_two_fits_each_with_the_other_half_frozen(client: Trainer, own: Tensors) -> None:
    outcome = one(client, pb.Rule(name="fedrep", personal=HEAD, options={"head_epochs": 3.0}), own)
    rng, longer = Stream(3), pb.Training()
    longer.CopyFrom(TRAINING)
    longer.epochs = 3
    begun = {**client.initial(0), **own}
    head = client.train(begun, longer, rng, terms=Terms(only=HEAD)).tensors
    body = client.train(head, TRAINING, rng, terms=Terms(only=BODY))
    assert of(head, BODY) == of(begun, BODY)
    assert of(outcome.own, HEAD) == of(head, HEAD) == of(body.tensors, HEAD) != of(begun, HEAD)
    assert of(outcome.shared, BODY) == of(body.tensors, BODY) != of(begun, BODY)
    assert outcome.steps == body.steps


def test_fedbabu_trains_the_body_under_the_seeds_head_and_keeps_nothing(client: Trainer, own: Tensors) -> None:
    said = pb.Rule(name="fedbabu", personal=HEAD, options={"fine_tune_epochs": 5.0})
    start = client.initial(0)
    outcome = one(client, said, own)
    frozen = client.train(start, TRAINING, Stream(3), terms=Terms(only=BODY)).tensors
    assert of(outcome.shared, BODY) == of(frozen, BODY)
    assert of(outcome.shared, HEAD) == of(start, HEAD)
    assert not outcome.own
    body = {n: frozen[n] for n in BODY}
    longer = pb.Training()
    longer.CopyFrom(TRAINING)
    longer.epochs = 5
    tuned = rule(said).personal(body, own, learner(client))
    assert content_hash(tuned) == content_hash(client.train({**start, **body}, longer, Stream(3)).tensors)


@given(seed=st.integers(0, 50), patterns=st.sampled_from(['["head.*"]', '["body.*"]', '["*.bias"]']))
@settings(max_examples=15)
def test_lg_fedavg_is_fedper_with_other_names(rounds: Any, perceptrons: Any, seed: int, patterns: str) -> None:
    plan = (f"strategy.personal={patterns}", f"run.seed={seed}", "upload.codec=ef+ecsq:3")
    ours, theirs = (
        rounds(perceptrons(seed, SIZES), 3, f"strategy.name={name}", *plan) for name in ("lg-fedavg", "fedper")
    )
    assert content_hash(ours.model) == content_hash(theirs.model)
    assert [content_hash(o) for o in ours.own] == [content_hash(o) for o in theirs.own]


@given(seed=st.integers(0, 50), epochs=st.integers(1, 4))
@settings(max_examples=15)
def test_what_finetune_serves_is_fedavgs_model(rounds: Any, perceptrons: Any, seed: int, epochs: int) -> None:
    plan = (f"run.seed={seed}", "evaluate.clients_every=1", "upload.codec=ef+ecsq:3")
    tuned = rounds(perceptrons(seed, SIZES), 3, "strategy.name=finetune", f"strategy.fine_tune_epochs={epochs}", *plan)
    plain = rounds(perceptrons(seed, SIZES), 3, *plan)
    assert content_hash(tuned.model) == content_hash(plain.model)
    assert not any(tuned.own)
    assert len({content_hash(p) for p in tuned.personal}) == len(SIZES), "each its own"
    accuracies = [[r[i].held_out_loss for r in p.reports for i in r] for p in (tuned, plain)]
    assert accuracies[0] != accuracies[1], "what is measured is the fine-tuned model"


@given(seed=st.integers(0, 50), n=st.integers(1, 4))
@settings(max_examples=15)
def test_local_is_training_alone_and_sends_no_bytes(rounds: Any, perceptrons: Any, seed: int, n: int) -> None:
    played = rounds(
        perceptrons(seed, SIZES), n, "strategy.name=local", "train.lr=0.2", "upload.codec=ef:0.9+predict:0.5+ecsq:3"
    )
    assert set(played.payloads.values()) == {0}
    assert played.model == {}
    training = pb.Training(epochs=1, batch_size=4, optimizer="sgd", lr=0.2)
    for i, trainer in enumerate(perceptrons(seed, SIZES)):
        model = trainer.initial(0)
        for round_ in range(1, n + 1):
            model = trainer.train(model, training, Stream.of(0, f"client-{i}", round_, "train")).tensors
        assert content_hash(played.personal[i]) == content_hash(model)


@pytest.mark.parametrize("name", ["fedper", "fedrep", "lg-fedavg"])
def test_what_is_personal_differs_and_what_is_shared_agrees(rounds: Any, perceptrons: Any, name: str) -> None:
    played = rounds(perceptrons(2, SIZES), 2, f"strategy.name={name}", 'strategy.personal=["head.*"]')
    assert list(played.model) == BODY
    assert all(list(own) == HEAD for own in played.own)
    assert {of(p, BODY) for p in played.personal} == {of(played.model, BODY)}
    assert len({of(p, HEAD) for p in played.personal}) == len(SIZES)


def test_fedbabus_head_never_travels_nor_changes(rounds: Any, perceptrons: Any) -> None:
    trainers = perceptrons(2, SIZES)
    played = rounds(trainers, 3, "strategy.name=fedbabu", 'strategy.personal=["head.*"]', "train.lr=0.5")
    assert list(played.model) == BODY
    assert not any(played.own)
    start = trainers[0].initial(0)
    assert not np.array_equal(played.model["body.weight"], start["body.weight"])
    for personal in played.personal:
        assert of(personal, HEAD) != of(start, HEAD), "fine-tuned to be used"
