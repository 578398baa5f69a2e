"""What a strategy can ask of a plan, and the refusal of a plan that does not have it: when the plan is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fedpress.errors import PlanError
from fedpress.plan import Plan

POINTS: Final = "points"
GRADIENTS: Final = "gradients"
REPRESENTATIONS: Final = "representations"
LOSSES: Final = "losses"
ROUNDS: Final = "rounds"
SGD: Final = "sgd"
ANY_SGD: Final = "any sgd"
BUFFER: Final = "buffer"
EACH: Final = "each"
UNCLIPPED: Final = "unclipped"
EXACT: Final = "exact"

#: What each trainer lets a rule do; and of that, what local privacy can guard.
_TRAINERS: Final[Mapping[str, frozenset[str]]] = {
    "torch": frozenset({POINTS, GRADIENTS, REPRESENTATIONS, LOSSES}),
    "numpy": frozenset({POINTS, GRADIENTS, REPRESENTATIONS, LOSSES}),
    "idle": frozenset(),
}
_GUARDED: Final = frozenset({POINTS, GRADIENTS})
#: For each need: in words, whether a plan meets it, and the remedy.
NEEDS: Final[Mapping[str, tuple[str, Callable[[Plan], bool], str]]] = {
    POINTS: (
        "a trainer that really trains",
        lambda plan: POINTS in _TRAINERS[plan.train.trainer],
        "train.trainer = 'torch'",
    ),
    GRADIENTS: (
        "steps of its own on a trainer that really trains",
        lambda plan: _gives(plan, GRADIENTS),
        "train.trainer = 'torch'",
    ),
    REPRESENTATIONS: (
        "a term on representations, which local privacy cannot guard",
        lambda plan: _gives(plan, REPRESENTATIONS),
        "train.trainer = 'torch' and privacy.mode = 'none'",
    ),
    LOSSES: (
        "the loss of models on a device's examples, which local privacy cannot guard",
        lambda plan: _gives(plan, LOSSES),
        "train.trainer = 'torch' and privacy.mode = 'none'",
    ),
    ROUNDS: (
        "synchronous rounds",
        lambda plan: plan.cohort.buffer == 0 and plan.cohort.late == "drop",
        "cohort.buffer = 0 and cohort.late = 'drop'",
    ),
    BUFFER: (
        "a buffer of updates in place of rounds",
        lambda plan: plan.cohort.buffer > 0,
        "cohort.buffer of 1 or more, such as a tenth of the clients that train at once",
    ),
    EACH: ("a version after every update", lambda plan: plan.cohort.buffer == 1, "cohort.buffer = 1"),
    SGD: (
        "plain SGD on the device",
        lambda plan: plan.train.optimizer == "sgd" and not plan.train.momentum and not plan.train.weight_decay,
        "train.optimizer = 'sgd', train.momentum = 0 and train.weight_decay = 0",
    ),
    UNCLIPPED: (
        "gradients that are not clipped",
        lambda plan: plan.train.max_grad_norm == 0,
        "train.max_grad_norm = 0",
    ),
    EXACT: (
        "more of each client than its update, which central privacy would have to let through without a bound",
        lambda plan: plan.privacy.mode != "central",
        "privacy.mode = 'none' or 'local'",
    ),
    ANY_SGD: (
        "SGD on the device, with or without momentum",
        lambda plan: plan.train.optimizer == "sgd",
        "train.optimizer = 'sgd'",
    ),
}


def check(name: str, needs: frozenset[str], plan: Plan) -> None:
    """Raise PlanError, naming the reason and the remedy, where a plan lacks what the strategy ``name`` needs."""
    for need in sorted(needs):
        what, met, remedy = NEEDS[need]
        if not met(plan):
            raise PlanError(f"The strategy '{name}' needs {what}: expected {remedy} (strategy.name).")


def _gives(plan: Plan, what: str) -> bool:
    return what in _TRAINERS[plan.train.trainer] and (plan.privacy.mode == "none" or what in _GUARDED)
