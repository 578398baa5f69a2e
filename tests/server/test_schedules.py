"""Learning rate and epochs of every round, beside numbers computed by hand."""

from __future__ import annotations

import pytest

from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.server.leases import Lease
from fedpress.server.tickets import asked, local_privacy, shared_seed, training


def series(*overrides: str, rounds: int = 5) -> tuple[list[float], list[int]]:
    plan = load(None, ["train.lr=0.4", f"run.rounds={rounds}", *overrides])
    made = [training(plan, round_) for round_ in range(1, rounds + 1)]
    return [m.lr for m in made], [m.epochs for m in made]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.schedule=constant"], [0.4, 0.4, 0.4, 0.4, 0.4]),
        (["train.schedule=linear"], [0.4, 0.3, 0.2, 0.1, 0.0]),
        (["train.schedule=linear", "train.lr_end=0.2"], [0.4, 0.35, 0.3, 0.25, 0.2]),
        (["train.schedule=cosine"], [0.4, 0.3414213562, 0.2, 0.0585786438, 0.0]),
        (["train.schedule=step", "train.lr_drop_every=2", "train.lr_drop=0.5"], [0.4, 0.4, 0.2, 0.2, 0.1]),
        (["train.schedule=step", "train.lr_drop_every=1"], [0.4, 0.04, 0.004, 0.0004, 0.00004]),
        (["train.warmup_rounds=3"], [0.1, 0.2, 0.3, 0.4, 0.4]),
        (["train.warmup_rounds=1", "train.schedule=linear"], [0.2, 0.4, 0.4 * 2 / 3, 0.4 / 3, 0.0]),
        (
            ["train.warmup_rounds=1", "train.schedule=step", "train.lr_drop_every=2", "train.lr_drop=0.25"],
            [0.2, 0.4, 0.4, 0.1, 0.1],
        ),
    ],
    ids=str,
)
def test_learning_rates(overrides: list[str], expected: list[float]) -> None:
    assert series(*overrides)[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(3, 0, [3, 3, 3, 3, 3]), (5, 1, [5, 4, 3, 2, 1]), (1, 3, [1, 2, 2, 3, 3]), (3, 1, [3, 3, 2, 2, 1])],
)
def test_epochs_follow_a_line_with_halves_up(first: int, last: int, expected: list[int]) -> None:
    assert series(f"train.epochs={first}", f"train.epochs_end={last}")[1] == expected


def test_a_run_of_one_round_begins_where_it_ends() -> None:
    for schedule in ("constant", "linear", "cosine"):
        assert series(f"train.schedule={schedule}", "train.epochs=2", "train.epochs_end=9", rounds=1) == ([0.4], [2])


@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_a_device_hears_how_often_it_will_be_asked_at_most(rounds: int, every: int) -> None:
    """Each round's asking, and the last model's: what it has to make its budget last for."""
    words = ["privacy.mode=local", "privacy.epsilon=4", f"run.rounds={rounds}", f"evaluate.clients_every={every}"]
    plan = load(None, words)
    times = sum(asked(plan, Lease("00", "c", round_)) for round_ in range(1, rounds + 1))
    assert local_privacy(plan).evaluations == (times + 1 if every else 0)


def test_codes_are_drawn_anew_in_each_round_of_each_run() -> None:
    seeds = [shared_seed(load(None, [f"run.seed={seed}"]), round_) for seed in (0, 1) for round_ in (1, 2, 3)]
    assert len(set(seeds)) == 6


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.schedule=step", "train.lr_drop_every > 0"),
        ("train.lr_drop_every=3", "only there"),
        ("train.lr_drop=1.5", "train.lr_drop"),
        ("train.warmup_rounds=5", r"fewer than run.rounds \(5\)"),
        ("train.epochs_end=-1", "train.epochs_end"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(override: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        load(None, ["run.rounds=5", override])
