"""The federated settings in which each task is measured, found by hand on uncompressed runs of seed 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_SKEWED: Final = ("clients.count=10", "clients.partition=dirichlet", "clients.alpha=0.3")
_FASHION: Final = ("train.lr=0.03", "train.momentum=0.9", "train.schedule=cosine")

#: By name. A name is a task's, or a task's with `` / `` and what is different about it.
SETTINGS: Final[Mapping[str, Sequence[str]]] = {
    "digits": (*_SKEWED, "run.rounds=40", "train.epochs=5", "train.lr=0.1"),
    "fashion-mnist": (*_SKEWED, *_FASHION, "run.rounds=20"),
    "fashion-mnist / 20 of 100": (
        *_SKEWED,
        *_FASHION,
        "clients.count=100",
        "cohort.fraction=0.2",
        "run.rounds=40",
    ),
    "femnist": (
        "clients.partition=natural",
        "clients.count=105",
        "cohort.fraction=0.2",
        "run.rounds=60",
        "train.batch_size=16",
        "train.epochs=3",
        "train.lr=0.03",
        "train.momentum=0.9",
        "train.schedule=cosine",
    ),
    "har": (
        "clients.partition=natural",
        "clients.count=30",
        "run.rounds=30",
        "train.epochs=4",
        "train.lr=0.02",
        "train.momentum=0.9",
        "train.schedule=cosine",
    ),
    "shakespeare": (
        "clients.partition=natural",
        "clients.count=40",
        "run.rounds=25",
        "train.batch_size=8",
        "train.optimizer=adam",
        "train.lr=0.002",
        "train.schedule=cosine",
    ),
}
#: What every run of a benchmark has in common.
QUIET: Final = ("engine.name=inline", "evaluate.clients_every=0", "run.checkpoint_every=0")


def task_of(name: str) -> str:
    """The task that settings are of."""
    return name.split(" / ")[0]
