"""Who holds which examples: a data set split over simulated clients.

    iid        a random equal split
    dirichlet  each label's examples go to the clients in proportions drawn from a symmetric Dirichlet(alpha)
    shards     sorted by label, cut into ``count * shards`` pieces, ``shards`` to each client (McMahan et al. 2017)
    natural    each owner is a client: the first ``count`` of them

Dirichlet label skew is due to Hsu, Qi and Brown, *Measuring the Effects of Non-Identical Data Distribution* (2019),
who draw each *client's* label mix from Dirichlet(alpha * prior) at equal sizes. Here, as in most benchmarks since
(Yurochkin et al. 2019; Li et al. 2022), each *label's* spread over the clients is drawn: sizes differ too, and the same
alpha is milder. A client left with fewer than two examples is topped up from the largest.

Same seed, same split. Every training example goes to exactly one client; only ``natural`` leaves later owners out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stream import Stream
from fedpress.errors import DataError, PlanError
from fedpress.sections import Clients
from fedpress.task import ClientData, Data, Split

Index: TypeAlias = NDArray[np.int64]

#: What every client gets at least: one example to learn from and one to hold out.
MIN_EXAMPLES: Final = 2


def partition(data: Data, clients: Clients, seed: int) -> list[ClientData]:
    """One ``ClientData`` for each of ``clients.count`` clients.

    ``clients.holdout`` of each client's examples, drawn at random and rounded, are held out; one at least is left to
    learn from. With ``natural``, an owner who has examples in ``data.test`` holds out exactly those instead.
    Raises PlanError if this data set cannot be split so.
    """
    indexes = assign(data, clients, seed)
    rng = _generator("holdout", seed)
    owned_test = data.test.owner if clients.partition == "natural" else None
    out = []
    for client, index in enumerate(indexes):
        own = np.zeros(0, np.int64) if owned_test is None else np.flatnonzero(owned_test == client)
        if len(own):
            out.append(ClientData(data.train.take(index), data.test.take(own)))
            continue
        held = min(round(clients.holdout * len(index)), len(index) - 1)
        drawn = rng.permutation(index)
        out.append(ClientData(data.train.take(np.sort(drawn[held:])), data.train.take(np.sort(drawn[:held]))))
    return out


def assign(data: Data, clients: Clients, seed: int) -> list[Index]:
    """Each client's examples as ascending indexes into ``data.train``, before holding out. Raises PlanError."""
    if clients.partition != "natural" and len(data.train) < MIN_EXAMPLES * clients.count:
        raise PlanError(
            f"Expected at most {len(data.train) // MIN_EXAMPLES} clients for {len(data.train)} examples, "
            f"got {clients.count} (clients.count)."
        )
    parts = _SCHEMES[clients.partition](data, clients, _generator("partition", seed))
    return [np.sort(part) for part in parts]


def names(data: Data, clients: Clients) -> list[str]:
    """One distinct name per client, safe as a file name: ``client-007``, or the owner's with ``natural``."""
    if clients.partition != "natural":
        return [f"client-{index:03d}" for index in range(clients.count)]
    out: list[str] = []
    for owner in data.owners[: clients.count]:
        slug = re.sub(r"[^a-z0-9_]+", "-", owner.lower()).strip("-") or "client"
        twins = (name for k in range(2, len(out) + 3) if (name := f"{slug}-{k}") not in out)
        out.append(slug if slug not in out else next(twins))
    return out


def _generator(purpose: str, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(Stream.of(purpose, seed).seed()))


def _iid(data: Data, clients: Clients, rng: np.random.Generator) -> list[Index]:
    return np.array_split(rng.permutation(len(data.train)), clients.count)


def _dirichlet(data: Data, clients: Clients, rng: np.random.Generator) -> list[Index]:
    parts: list[list[int]] = [[] for _ in range(clients.count)]
    labels = _labels(data.train, clients)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients.count, clients.alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.extend(piece.tolist())
    for part in parts:
        while len(part) < MIN_EXAMPLES:
            part.append(max(parts, key=len).pop())
    return [np.array(part, np.int64) for part in parts]


def _shards(data: Data, clients: Clients, rng: np.random.Generator) -> list[Index]:
    labels = _labels(data.train, clients)
    kinds, pieces = len(np.unique(labels)), clients.count * clients.shards
    if clients.shards > kinds:
        raise PlanError(f"Expected at most as many shards per client as labels ({kinds}), got {clients.shards}.")
    if pieces > len(labels):
        raise PlanError(
            f"Expected clients.count * clients.shards of at most the examples ({len(labels)}), got {pieces}."
        )
    shuffled = rng.permutation(len(labels))
    shards = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], pieces)
    drawn = rng.permutation(pieces).reshape(clients.count, clients.shards)
    return [np.concatenate([shards[k] for k in row]) for row in drawn]


def _natural(data: Data, clients: Clients, rng: np.random.Generator) -> list[Index]:  # noqa: ARG001 - nothing is drawn
    if data.train.owner is None or not data.owners:
        raise PlanError("Expected data whose examples have owners for clients.partition = 'natural', got none.")
    if clients.count > len(data.owners):
        raise PlanError(f"Expected at most {len(data.owners)} natural clients, got {clients.count} (clients.count).")
    parts = [np.flatnonzero(data.train.owner == owner) for owner in range(clients.count)]
    for name, part in zip(data.owners, parts, strict=False):
        if not len(part):
            raise DataError(f"Expected every owner to have training examples, '{name}' has none.")
    return parts


def _labels(split: Split, clients: Clients) -> NDArray[Any]:
    if split.y.ndim != 1 or split.y.dtype.kind not in "biu":
        raise PlanError(
            f"Expected one integer label per example for clients.partition = '{clients.partition}', "
            f"got {split.y.dtype} targets of shape {list(split.y.shape)}; 'iid' and 'natural' need no labels."
        )
    return split.y


_SCHEMES: Final[Mapping[str, Callable[[Data, Clients, np.random.Generator], list[Index]]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "natural": _natural,
}
if set(_SCHEMES) != set(get_args(Clients.model_fields["partition"].annotation)):
    raise RuntimeError("The partitions here and those of the plan differ.")
