"""The zoo's cells: a model, an optimiser and data each, in one of two halves.

Codecs and their defaults may be tuned on the half ``tuned``. The half ``unseen`` says what they are worth: nothing may
be chosen by it. Kinds of models, optimisers, rates, partitions and numbers of clients are spread over both. Rates were
chosen on uncompressed runs of seed 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

Half: TypeAlias = Literal["tuned", "unseen"]
HALVES: Final[tuple[Half, ...]] = ("tuned", "unseen")

_TASKS: Final = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Cell:
    """One cell: its half, and the keys of its plans. What is compared is ``stop.metric``, of which more is better:
    accuracy, or r2 of a regression. ``small``: a run takes about a second, so that the cell runs in CI."""

    half: Half
    keys: tuple[str, ...]
    small: bool = False


def task(name: str) -> str:
    """The key that names one of the zoo's tasks."""
    return f'task.name="{_TASKS / name}.py"'


def _cell(half: Half, name: str, *keys: str, small: bool = False) -> Cell:
    return Cell(half, (task(name), *keys), small)


def _iid(clients: int) -> tuple[str, ...]:
    return (f"clients.count={clients}", "clients.partition=iid")


def _skewed(clients: int, alpha: float = 0.1) -> tuple[str, ...]:
    """Rates fall to zero, or the last rounds would show little but who took part in them."""
    return (
        "train.schedule=cosine",
        f"clients.count={clients}",
        "clients.partition=dirichlet",
        f"clients.alpha={alpha}",
    )


def _owners(clients: int) -> tuple[str, ...]:
    return (f"clients.count={clients}", "clients.partition=natural")


def _train(optimizer: str, lr: float, batch: int = 32, steps: int = 0, rounds: int = 30) -> tuple[str, ...]:
    """``optimizer``: sgd, momentum (SGD with 0.9), adam or adamw (weight decay 0.01)."""
    momentum = ("train.momentum=0.9",) if optimizer == "momentum" else ()
    decay = ("train.weight_decay=0.01",) if optimizer == "adamw" else ()
    named = f"train.optimizer={'sgd' if momentum else optimizer}"
    sizes = (f"train.batch_size={batch}", f"train.max_steps={steps}", f"run.rounds={rounds}")
    return (named, f"train.lr={lr}", *momentum, *decay, *sizes)


#: R2 is of one batch: the whole test set is one.
_REGRESSION: Final = ("stop.metric=r2", "evaluate.batch_size=4096")
_SOME: Final = ("cohort.fraction=0.1",)
_QUARTER: Final = ("cohort.fraction=0.25",)

#: By name: the task, the optimiser, and who takes part ("at 0.1": Dirichlet, of that concentration).
CELLS: Final[Mapping[str, Cell]] = {
    # tables
    "separable, sgd, 5 iid": _cell("tuned", "separable", *_iid(5), *_train("sgd", 0.1, steps=6), small=True),
    "cancer, momentum, 2 iid": _cell("unseen", "cancer_logistic", *_iid(2), *_train("momentum", 0.01, 16), small=True),
    "clusters in units, adam, 10 iid": _cell("tuned", "clusters_units", *_iid(10), *_train("adam", 0.03, steps=8)),
    "heart, adam, 4 hospitals": _cell("unseen", "heart", *_owners(4), *_train("adam", 0.003, 16)),
    "linear, sgd, 5 iid": _cell("tuned", "linear", *_iid(5), *_train("sgd", 0.03, steps=3), *_REGRESSION, small=True),
    "diabetes, sgd, 2 iid": _cell("unseen", "diabetes", *_iid(2), *_train("sgd", 0.03, 8), *_REGRESSION, small=True),
    "friedman, adam, 10 iid": _cell("tuned", "friedman", *_iid(10), *_train("adam", 0.003, steps=8), *_REGRESSION),
    "houses with BatchNorm, adamw, 10 iid": _cell(
        "unseen", "houses", *_iid(10), *_train("adamw", 0.01, steps=6), *_REGRESSION
    ),
    "digits, adam, 5 at 0.1": _cell("tuned", "digits_mlp", *_skewed(5), *_train("adam", 0.001), small=True),
    "digits in pixels, sgd, 10 of 100 iid": _cell(
        "unseen", "digits_raw", *_iid(100), *_SOME, *_train("sgd", 0.01, 8, rounds=40)
    ),
    "digits, momentum, 10 of 100 at 0.1": _cell(
        "tuned", "digits_mlp", *_skewed(100), *_SOME, *_train("momentum", 0.03, 8, rounds=40)
    ),
    "clusters, adamw, 10 at 0.1": _cell("unseen", "clusters_mlp", *_skewed(10), *_train("adamw", 0.003)),
    "BatchNorm at 0.01, sgd, 5 iid": _cell("tuned", "clusters_bn_small", *_iid(5), *_train("sgd", 0.1)),
    "cancer with BatchNorm, sgd, 10 iid": _cell("unseen", "cancer_bn", *_iid(10), *_train("sgd", 0.03, 8)),
    "BatchNorm in units, adam, 10 of 100 at 0.1": _cell(
        "tuned", "clusters_bn_units", *_skewed(100), *_SOME, *_train("adam", 0.01, 16, steps=3, rounds=40)
    ),
    "BatchNorm in units, momentum, 10 iid": _cell("unseen", "clusters_bn_units", *_iid(10), *_train("momentum", 0.03)),
    # pictures
    "mnist, sgd, 10 at 0.3": _cell("tuned", "mnist_cnn", *_skewed(10, 0.3), *_train("sgd", 0.1, steps=5)),
    "mnist in pixels, adamw, 2 iid": _cell("unseen", "mnist_pixels", *_iid(2), *_train("adamw", 0.001, steps=15)),
    "fashion with BatchNorm, momentum, 10 iid": _cell(
        "tuned", "fashion_bn", *_iid(10), *_train("momentum", 0.1, steps=2)
    ),
    "fashion with GroupNorm, adam, 10 at 0.1": _cell(
        "unseen", "fashion_gn", *_skewed(10), *_train("adam", 0.003, steps=4)
    ),
    "fashion with GroupNorm, sgd, 10 of 100 iid": _cell(
        "tuned", "fashion_gn", *_iid(100), *_SOME, *_train("sgd", 0.3, 8, steps=3, rounds=40)
    ),
    "fashion with BatchNorm, adam, 10 of 100 at 0.1": _cell(
        "unseen", "fashion_bn", *_skewed(100), *_SOME, *_train("adam", 0.003, 8, steps=3, rounds=40)
    ),
    "fashion depthwise, momentum, 2 iid": _cell(
        "tuned", "fashion_depthwise", *_iid(2), *_train("momentum", 0.03, steps=8)
    ),
    "fashion at 0.01 with BatchNorm, sgd, 2 iid": _cell(
        "unseen", "fashion_bn_small", *_iid(2), *_train("sgd", 0.1, steps=10)
    ),
    "colours, momentum, 5 iid": _cell("tuned", "colour_cnn", *_iid(5), *_train("momentum", 0.01, steps=4, rounds=20)),
    "colours residual, sgd, 5 iid": _cell("unseen", "colour_resnet", *_iid(5), *_train("sgd", 0.1, steps=4, rounds=20)),
    "colours with BatchNorm, adam, 5 iid": _cell(
        "tuned", "colour_bn", *_iid(5), *_train("adam", 0.001, steps=4, rounds=20)
    ),
    "colours depthwise, adamw, 5 iid": _cell(
        "unseen", "colour_depthwise", *_iid(5), *_train("adamw", 0.003, steps=4, rounds=20)
    ),
    "colours residual with GroupNorm, adam, 2 iid": _cell(
        "tuned", "colour_resnet_gn", *_iid(2), *_train("adam", 0.003, steps=6, rounds=20)
    ),
    "femnist, adam, 4 of 40 writers": _cell(
        "unseen", "writers_cnn", *_owners(40), *_SOME, *_train("adam", 0.003, 16, steps=6, rounds=40)
    ),
    "femnist with GroupNorm, sgd, 4 of 40 writers": _cell(
        "tuned", "writers_gn", *_owners(40), *_SOME, *_train("sgd", 0.3, 16, steps=6, rounds=40)
    ),
    # signals
    "har, momentum, 3 of 30 people": _cell(
        "tuned", "har_mlp", *_owners(30), *_SOME, *_train("momentum", 0.01, 16, rounds=40)
    ),
    "har in raw signals, adam, 10 at 0.1": _cell(
        "unseen", "har_inertial", *_skewed(10), *_train("adam", 0.003, steps=3)
    ),
    # sequences
    "plays, transformer, adam, 5 of 20 roles": _cell(
        "tuned", "plays_transformer", *_owners(20), *_QUARTER, *_train("adam", 0.003, 16)
    ),
    "plays, GRU, sgd, 5 of 20 roles": _cell("unseen", "plays_gru", *_owners(20), *_QUARTER, *_train("sgd", 1.0, 16)),
    "chain, LSTM, adam, 10 iid": _cell("tuned", "chain_lstm", *_iid(10), *_train("adam", 0.01, steps=2)),
    "chain, transformer, adamw, 10 iid": _cell(
        "unseen", "chain_transformer", *_iid(10), *_train("adamw", 0.01, steps=2)
    ),
    "order, GRU, momentum, 10 iid": _cell("tuned", "order_gru", *_iid(10), *_train("momentum", 0.1, steps=3)),
    "topics, sgd, 10 of 100 iid": _cell("unseen", "topics_bag", *_iid(100), *_SOME, *_train("sgd", 10.0, 8, rounds=40)),
    "topics, adamw, 10 iid": _cell("tuned", "topics_bag", *_iid(10), *_train("adamw", 0.01, steps=8)),
    "ratings, adam, 10 iid": _cell("unseen", "ratings", *_iid(10), *_train("adam", 0.02, 128, steps=12), *_REGRESSION),
    "ratings, sgd, 10 iid": _cell("tuned", "ratings", *_iid(10), *_train("sgd", 5.0, 128, steps=12), *_REGRESSION),
}


def chosen(half: Half | Literal["all"], small: bool = False) -> list[str]:
    """The names of a half's cells, or of all, half by half; with ``small``, of those that run in CI."""
    halves = HALVES if half == "all" else (half,)
    return [name for one in halves for name, cell in CELLS.items() if cell.half == one and (cell.small or not small)]
