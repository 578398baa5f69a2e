"""IFCA's client half (Ghosh et al. 2020, algorithm 1, option II): the cluster of lowest loss on the device's training
examples is trained plainly. Nothing is kept: which cluster fits is asked anew each time. Of equals it is the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use
from fedpress.compression.layout import group, grouped, part
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Ifca:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """Losses, which nothing hides."""
        return ()

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:  # noqa: ARG002 - a rule's signature
        """Fit the cluster that fits best; the others stay."""
        number, model = _nearest(shared, learner)
        trained = learner.fit(model)
        changed = grouped(f"cluster{number}", trained.tensors)
        return Outcome(changed, {}, trained.examples, trained.steps, trained.loss, {"cluster": float(number)})

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:  # noqa: ARG002
        """The cluster that fits best."""
        return learner.whole(_nearest(shared, learner)[1])


def _nearest(shared: Tensors, learner: Learner) -> tuple[int, Tensors]:
    """Number and model of the cluster of lowest loss."""
    models = [part(label, shared) for label in dict.fromkeys(map(group, shared))]
    losses = [learner.loss(model) for model in models]
    number = losses.index(min(losses))
    return number, models[number]
