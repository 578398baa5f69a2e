"""MOON's client half (Li, He and Song 2021): a contrastive term on representations.

With ``s(u, v)`` the cosine of two representations, ``z`` an example's under the model in training, ``z_glob`` under the
one that arrived, ``z_prev`` under this client's own after its last training, and ``a = s(z, z_glob) / t``,
``b = s(z, z_prev) / t``, the local loss gains ``mu`` times the mean of

    -log(e^a / (e^a + e^b)) = log(1 + e^(b - a))

Before its first training a client has no model of its own; the one that arrived in its place would make the term
constant, so it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from fedpress.client.learner import Learner
from fedpress.client.rules.fedavg import FedAvg
from fedpress.client.rules.rule import Outcome, Use, kept, option
from fedpress.client.trainers.trainer import PLAIN, Contrast, Terms
from fedpress.compression.layout import grouped
from fedpress.params import Tensors

#: Added to squared lengths: a representation of zeros, as ReLU can make one, has no direction.
_SMALL: Final = 1e-6


class Moon(FedAvg):
    """See ``fedpress.client.rules.rule.Rule``."""

    def uses(self) -> tuple[Use, ...]:
        """Representations, whose gradient is not clipped."""
        return ()

    def train(self, shared: Tensors, own: Tensors, learner: Learner) -> Outcome:
        """Fit with the term; what comes of it is kept for the next round."""
        previous = kept(own, "previous", shared)
        gradient = contrastive(option(self.said, "mu"), option(self.said, "temperature"))
        trained = learner.fit(shared, Terms(contrast=Contrast((shared, previous), gradient)) if previous else PLAIN)
        after = grouped("previous", trained.tensors)
        return Outcome(trained.tensors, after, trained.examples, trained.steps, trained.loss)


def contrastive(mu: float, temperature: float) -> Callable[[Any, Any, Any], Any]:
    """The gradient of the term's mean over n examples: ``(z, z_glob, z_prev)``, arrays[n, ...], to one like ``z``.

    With ``p`` the logistic function of ``b - a`` (see the module's docstring), it is ``p / t`` times the gradient of
    ``s(z, z_prev) - s(z, z_glob)``, where that of a cosine is ``v / (|z| |v|) - s(z, v) * z / |z|**2``.
    """

    def gradient(z: Any, near: Any, far: Any) -> Any:
        rows = z.reshape(len(z), -1)
        length = _length(rows)
        cosines, towards = [], []
        for other in (far.reshape(len(z), -1), near.reshape(len(z), -1)):
            sizes = length * _length(other)
            cosine = _dot(rows, other) / sizes
            cosines.append(cosine)
            towards.append(other / sizes - cosine * rows / (length * length))
        p = 1.0 / (1.0 + math.e ** ((cosines[1] - cosines[0]) / temperature))
        return (mu / (temperature * len(z)) * p * (towards[0] - towards[1])).reshape(z.shape)

    return gradient


def _dot(one: Any, other: Any) -> Any:
    """Of each row: [n, 1]."""
    return (one * other).sum(1)[:, None]


def _length(rows: Any) -> Any:
    return (_dot(rows, rows) + _SMALL) ** 0.5
