"""FedDyn's client half (Acar et al. 2021, algorithm 1): the local objective gains ``alpha / 2 * |w - w_global|**2`` and
loses ``g * w``, where ``g`` is the gradient of the plain loss where this client's last training ended.

There the gradient of the whole objective is 0, so that ``g`` needs no pass over the data: it becomes
``g - alpha * d``, ``d`` being the update as the server reads it. It is kept here in the group "gradient".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedpress.client.learner import Learner
from fedpress.client.rules.fedavg import FedAvg
from fedpress.client.rules.rule import Outcome, kept, option
from fedpress.client.trainers.trainer import Point, Terms
from fedpress.compression.layout import grouped
from fedpress.params import Tensors


class FedDyn(FedAvg):
    """See ``fedpress.client.rules.rule.Rule``."""

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Fit the regularised objective; the gradient that this device keeps moves with it."""
        alpha = option(self.said, "alpha")
        model = {n: shared[n] for n in learner.spec.named("weight") if n in shared}
        mine = kept(own, "gradient", model) or {n: np.zeros_like(a) for n, a in model.items()}
        anchor, pull = learner.point(model), learner.point(mine)

        def nudge(at: Mapping[str, Any], gradients: Point) -> None:
            for name in gradients:
                gradients[name] += alpha * (at[name] - anchor[name]) - pull[name]

        trained = learner.fit(shared, Terms(nudge))

        def settle(update: Tensors) -> Tensors:
            return grouped("gradient", {n: mine[n] - np.float32(alpha) * update[n] for n in mine})

        return Outcome(trained.tensors, {}, trained.examples, trained.steps, trained.loss, settle=settle)
