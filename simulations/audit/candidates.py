"""The examples of which an attack says whether a run's model was trained on them, and how sure a model is of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import DataError, MissingExtra
from fedpress.params import Tensors
from fedpress.privacy.audit.membership import confidence
from fedpress.privacy.audit.roc import Scores
from fedpress.simulations.problem import Problem
from fedpress.task import Split, Task

_BATCH = 512
_FEWEST = 20


@dataclass(frozen=True)
class Candidates:
    """``split``: n examples. ``inside[n]``: a member. ``client[n]``: who held it, or would hold it in a shadow run."""

    split: Split
    inside: NDArray[np.bool_]
    client: NDArray[np.int64]

    def balanced(self, rng: np.random.Generator) -> Candidates:
        """At most as many others as members: half of them is then as much as the run was trained on."""
        members, others = np.flatnonzero(self.inside), np.flatnonzero(~self.inside)
        kept = np.sort(np.concatenate([members, rng.permutation(others)[: len(members)]]))
        return Candidates(self.split.take(kept), self.inside[kept], self.client[kept])


def candidates(problem: Problem, took_part: Collection[str], rng: np.random.Generator) -> Candidates:
    """Members: what the clients named in ``took_part`` trained on. Others: the task's test data (of the clients' own
    owners, where they are natural); where it has none, what clients held out.

    Raises DataError where either are fewer than twenty.
    """
    chosen = [i for i, name in enumerate(problem.names) if name in took_part]
    members = [problem.clients[i].train for i in chosen]
    others = _unseen(problem)
    sizes = np.array([len(part) for part in members])
    if sizes.sum() < _FEWEST or len(others) < _FEWEST:
        raise DataError(
            f"Expected at least {_FEWEST} examples that clients trained on and as many that none did, "
            f"got {sizes.sum()} and {len(others)}."
        )
    held = np.repeat(chosen, sizes)
    split = _joined([*members, others])
    inside = np.arange(len(split)) < len(held)
    return Candidates(
        split, inside, np.concatenate([held, rng.permutation(np.resize(rng.permutation(held), len(others)))])
    )


def measured(problem: Problem, model: Tensors, split: Split) -> Scores:
    """How sure a whole model is of each example: float64[n], see ``membership.confidence``. Needs torch."""
    try:
        import torch
    except ModuleNotFoundError as error:  # pragma: no cover - the base install
        raise MissingExtra("An audit", "torch") from error
    from fedpress import torch_model

    module = torch_model.build(problem.task, problem.plan.run.seed)
    torch_model.load(module, model)
    module.double().eval()  # in single precision, many losses are exactly 0
    found = []
    with torch.no_grad():
        for at in range(0, len(split), _BATCH):
            x, y = (torch_model.tensor(part[at : at + _BATCH]) for part in (split.x, split.y))
            outputs = module(x.double() if x.is_floating_point() else x)
            found.append(_losses(problem.task, outputs, y))
    return confidence(np.concatenate(found))


def _losses(task: Task, outputs: Any, y: Any) -> Scores:
    """Each example's loss; of sequences, the mean over positions."""
    from torch.nn.functional import cross_entropy

    if task.loss is not None:
        return np.array([float(task.loss(outputs[i : i + 1], y[i : i + 1])) for i in range(len(y))])
    flat = cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1), reduction="none")
    losses: Scores = flat.reshape(len(y), -1).mean(1).numpy()
    return losses


def _unseen(problem: Problem) -> Split:
    test = problem.data.test
    if problem.plan.clients.partition == "natural" and test.owner is not None:
        test = test.take(test.owner < len(problem.names))
    return test if len(test) else _joined([client.held_out for client in problem.clients])


def _joined(parts: list[Split]) -> Split:
    return Split(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
