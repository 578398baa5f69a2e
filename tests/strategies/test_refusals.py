"""Plans that cannot work with a strategy are refused when they are read: the reason, and what would go."""

from __future__ import annotations

import numpy as np
import pytest

from fedpress.client.rules.rule import kept, option, whole
from fedpress.compression.layout import grouped
from fedpress.errors import PlanError, SpecError
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.leases import Lease
from fedpress.server.strategies import STRATEGIES, Arrival, build
from fedpress.server.tickets import ticket

IN_ROUNDS = ["scaffold", "fednova", "feddyn"]
TRAINED = ["fedprox", "scaffold", "fednova", "feddyn", "moon"]


def refuse(match: str, *overrides: str) -> None:
    with pytest.raises(PlanError, match=match):
        build(load(None, overrides))


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_what_counts_in_rounds_is_not_run_without_them(name: str) -> None:
    remedy = r"synchronous rounds: expected cohort\.buffer = 0 and cohort\.late = 'drop'"
    refuse(remedy, f"strategy.name={name}", "cohort.buffer=4")
    refuse(remedy, f"strategy.name={name}", "cohort.late=fold")


def test_what_has_no_rounds_is_not_run_in_rounds() -> None:
    refuse(r"a buffer of updates.*expected cohort\.buffer of 1 or more", "strategy.name=fedbuff")
    for size in (0, 2):
        refuse(r"after every update: expected cohort\.buffer = 1 ", "strategy.name=fedasync", f"cohort.buffer={size}")


@pytest.mark.parametrize("name", TRAINED)
def test_what_acts_on_training_needs_some(name: str) -> None:
    refuse(r"expected train\.trainer = 'torch'", f"strategy.name={name}", "train.trainer=idle")


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("fednova", "train.optimizer=adam"),
        ("fednova", "train.optimizer=adamw"),
        ("scaffold", "train.optimizer=adam"),
        ("scaffold", "train.momentum=0.9"),
        ("scaffold", "train.weight_decay=0.001"),
    ],
)
def test_what_reads_gradients_off_an_update_needs_sgd(name: str, override: str) -> None:
    refuse(r"SGD on the device.*expected train\.optimizer = 'sgd'", f"strategy.name={name}", override)


def test_what_acts_on_representations_does_not_go_with_local_privacy() -> None:
    private = ("privacy.mode=local", "privacy.noise_multiplier=1", "privacy.clip_norm=1")
    refuse(
        r"representations.*expected train\.trainer = 'torch' and privacy\.mode = 'none'", "strategy.name=moon", *private
    )
    build(load(None, ["strategy.name=feddyn", *private]))  # a term on parameters, after the noise


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("fedprox", "mu=-1"),
        ("feddyn", "alpha=-0.1"),
        ("moon", "mu=-1"),
        ("moon", "temperature=0"),
        ("fedavgm", "beta=1"),
        ("fedavgm", "beta=-0.1"),
        ("fedadagrad", "beta1=1"),
        ("fedadagrad", "tau=0"),
        ("fedadam", "beta2=1"),
        ("fedyogi", "beta2=nan"),
        ("fedyogi", "tau=-1"),
    ],
)
def test_options_out_of_range_are_refused_by_name(name: str, option: str) -> None:
    refuse(rf"strategy\.{option.partition('=')[0]}", f"strategy.name={name}", f"strategy.{option}")


def test_an_option_of_another_strategy_is_told_whose_it_is() -> None:
    refuse(
        r"no option 'beta2' \(strategy\.beta2\)\. It belongs to fedadam, fedyogi",
        "strategy.name=fedadagrad",
        "strategy.beta2=0.9",
    )


@pytest.mark.parametrize("name", ["fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_what_acts_on_the_server_alone_goes_with_all_that_devices_do(name: str) -> None:
    for override in ("cohort.buffer=4", "train.optimizer=adam", "privacy.mode=local", "train.trainer=idle"):
        assert build(load(None, [f"strategy.name={name}", override])).id == name


def test_adaptive_servers_bring_a_learning_rate_of_their_own() -> None:
    for name in ("fedadagrad", "fedadam", "fedyogi"):
        strategy = build(load(None, [f"strategy.name={name}"]))
        assert getattr(strategy, "lr") == STRATEGIES[name].server_lr > 0  # noqa: B009
        assert getattr(build(load(None, [f"strategy.name={name}", "strategy.lr=0.5"])), "lr") == 0.5  # noqa: B009


def test_steps_that_a_ticket_did_not_allow_count_for_nothing() -> None:
    said = pb.Training(epochs=2, batch_size=8, lr=0.1, max_steps=5)
    for name in ("fednova", "scaffold"):
        strategy = build(load(None, [f"strategy.name={name}"]))
        cases = [(4, 16, True), (5, 100, True), (5, 16, False), (6, 100, False), (2**32 - 1, 16, False)]
        for steps, examples, fine in cases:
            arrival = Arrival(pb.Report(steps=steps, examples=examples), said, 0, dict, dict)
            assert (strategy.share(arrival).weight > 0) == fine, (name, steps, examples)


def test_a_ticket_whose_options_are_missing_or_absurd_is_not_followed() -> None:
    for options in ({}, {"mu": float("nan")}, {"mu": -1.0}, {"mu": 1e9}):
        with pytest.raises(SpecError, match="option 'mu' of rule 'fedprox'"):
            option(pb.Rule(name="fedprox", options=options), "mu")
    with pytest.raises(SpecError, match="whole number"):
        whole(pb.Rule(name="finetune", options={"epochs": 1.5}), "epochs")


def test_what_was_kept_of_another_model_is_not_taken_for_this_ones() -> None:
    like = {"w": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}
    own = grouped("local", {"w": np.ones(2, np.float32), "b": np.ones(1, np.float32)})
    assert list(kept(own, "local", like)) == ["w", "b"]
    assert kept({n: a for n, a in own.items() if n != "local:b"}, "local", like) == {}
    assert kept({**own, "local:b": np.ones(3, np.float32)}, "local", like) == {}
    assert kept(own, "other", like) == {}


def test_the_final_evaluation_can_still_fine_tune() -> None:
    plan = load(None, ["train.schedule=cosine", "run.rounds=5", "train.lr=0.3"])
    last = Lease("00", "c", 5, evaluate=True)
    made = ticket(plan, last, 1.0, pb.Rule(), "00", [], "", 0)
    assert made.training.lr == 0.3
    assert made.evaluate
