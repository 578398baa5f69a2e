"""SCAFFOLD's client half (Karimireddy et al. 2020, algorithm 1, option II): each step is corrected by ``c - c_i``.

``c`` arrives in the group "control"; ``c_i`` is kept here. After K steps of rate eta, ``c_i`` becomes
``c_i - c - d / (K eta)``, ``d`` being the update as the server reads it. That change is a function of the update, which
the server has: it does not travel up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpress.client.learner import Learner
from fedpress.client.rules.rule import Outcome, Use, kept
from fedpress.client.trainers.trainer import Point, Terms
from fedpress.compression.layout import grouped, part
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Scaffold:
    """See ``fedpress.client.rules.rule.Rule``."""

    said: pb.Rule

    def uses(self) -> tuple[Use, ...]:
        """One fit."""
        return (Use(),)

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Fit with the correction; the control variate that this device keeps moves with what is sent."""
        model, common = part("", shared), part("control", shared)
        mine = kept(own, "control", common) or {n: np.zeros_like(c) for n, c in common.items()}
        correction = learner.point({n: common[n] - mine[n] for n in common})

        def nudge(at: Mapping[str, Any], gradients: Point) -> None:  # noqa: ARG001 - a nudge's signature
            for name in gradients:
                gradients[name] += correction[name]

        trained = learner.fit(model, Terms(nudge))
        moved = trained.steps * learner.training.lr

        def settle(update: Tensors) -> Tensors:
            if moved <= 0:
                return grouped("control", mine)
            return grouped("control", {n: mine[n] - common[n] - update[n] / np.float32(moved) for n in mine})

        return Outcome(trained.tensors, {}, trained.examples, trained.steps, trained.loss, settle=settle)

    def personal(self, shared: Tensors, own: Tensors, learner: Learner) -> Tensors:  # noqa: ARG002
        """The model that arrived."""
        return learner.whole(part("", shared))
