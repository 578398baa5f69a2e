"""pFedMe's client half (T Dinh et al. 2020, algorithm 1).

As in the authors' code the personal model begins each round at the model that arrived, goes on from batch to batch, and
is kept for use. Running statistics of the shared model are the personal one's.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use, kept, option, whole
from fedpress.compression.layout import grouped
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class PFedMe:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """A gradient on each batch for each step of the personal model."""
        return (Use(gradients=whole(self.said, "inner")),)

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:  # noqa: ARG002 - a rule's signature
        """On each batch: inner steps of the personal model, one of the shared model's copy."""
        lr, lam, eta = learner.training.lr, option(self.said, "lam"), option(self.said, "eta")
        copy, mine = learner.point(shared), learner.point(shared)
        total, seen, steps = 0.0, 0, 0
        for rows in learner.batches():
            for _ in range(whole(self.said, "inner")):
                gradients, loss = learner.gradient(mine, rows)
                for n, gradient in gradients.items():
                    mine[n] = mine[n] - lr * (gradient + lam * (mine[n] - copy[n]))
            for n in copy:
                copy[n] = copy[n] - eta * lam * (copy[n] - mine[n]) if n in gradients else mine[n]
            total, seen, steps = total + loss * len(rows), seen + len(rows), steps + 1
        stays = grouped("pfedme", learner.tensors(mine))
        return Outcome(learner.tensors(copy), stays, learner.examples, steps, total / max(1, seen))

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:
        """The personal model of the last round; before there is one, the shared."""
        return learner.whole(kept(own, "pfedme", shared) or shared)
