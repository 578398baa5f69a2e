"""The client half of a strategy, a *local rule*: what is trained how, what of it is shared, and what stays.

A rule is given what arrived (``shared``: the model's travelling tensors, and in their groups what travels beside them),
what this device kept of earlier rounds (``own``), and a ``Learner``. It returns the shared tensors as they are after
training, whose difference to those that arrived is the update, and what to keep, which never leaves the device and is
committed with the update's acknowledgement. Its arithmetic on the learner's arrays means the same in NumPy and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from fedpress.client.learner import Learner
from fedpress.errors import SpecError
from fedpress.params import Array, Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Outcome:
    """What a rule made of a round. ``shared``: of the names that arrived; those left out did not change.

    ``steps`` and ``loss`` are of the training that the update comes from. ``facts`` go to the strategy with the report.
    """

    shared: Tensors
    own: Tensors
    examples: int
    steps: int
    loss: float
    facts: Mapping[str, float] = field(default_factory=dict)
    settle: Callable[[Tensors], Tensors] | None = None
    """What to keep besides, given the update as the server reads it: where both ends must take it for the same."""


class Use(NamedTuple):
    """How a rule uses the data in one round: passes over them (0: as many as the ticket says), at most so many
    ``batches`` of them (0: all), gradients per batch; ``evaluating``: not in training, but for metrics."""

    epochs: int = 0
    gradients: int = 1
    batches: int = 0
    evaluating: bool = False


class Rule(Protocol):
    """See the module's docstring. Made for one ticket."""

    def uses(self) -> tuple[Use, ...]:
        """All that ``train`` and ``personal`` will ask of the data, or more: what local privacy has to hide. () for a
        rule that asks for what cannot be hidden, such as losses."""

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """One round's local work. Neither argument is changed."""

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """The whole model that this device would use now: the one its metrics are of. May train (fine-tuning)."""


#: No option of a rule is larger.
_LARGEST: Final = 1e6


def option(said: pb.Rule, name: str) -> float:
    """An option that the server must have told. Raises SpecError for one that is not there, or absurd."""
    if name not in said.options or not 0 <= said.options[name] <= _LARGEST:  # false for NaN too
        told = dict(said.options).get(name, "nothing")
        raise SpecError(f"Expected the option '{name}' of rule '{said.name}' between 0 and {_LARGEST:g}, got {told}.")
    return said.options[name]


def whole(said: pb.Rule, name: str) -> int:
    """The same, as a whole number of at most 1000, such as passes over the data."""
    value = option(said, name)
    if value != int(value) or value > 1000:
        raise SpecError(f"Expected a whole number up to 1000 as '{name}' of rule '{said.name}', got {value}.")
    return int(value)


def kept(own: Tensors, label: str, like: Tensors) -> dict[str, Array]:
    """What was kept in a group (``label:name``), as the names and shapes of ``like``; {} where any is missing."""
    found = {
        n: own[f"{label}:{n}"] for n, a in like.items() if getattr(own.get(f"{label}:{n}"), "shape", None) == a.shape
    }
    return found if len(found) == len(like) else {}
