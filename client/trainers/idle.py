"""A trainer that does not train: it returns the model and a small pseudo-random step. NumPy only.

It is what remains when training costs nothing: the rest of a round, measured. The step is drawn once and turned by
another angle each round, so that payloads have realistic sizes at the price of one pass over the model. Its elements
are cubes of uniform numbers: a few large ones and many small ones, as in real updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fedpress.client.trainers.trainer import PLAIN, Terms, Trained
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, Tensors, TensorSpec, add, unflatten
from fedpress.privacy.accounting import History
from fedpress.protos import fleet_pb2 as pb


class IdleTrainer:
    """Returns the model plus a step of at most ``scale`` per element, and says it saw ``examples`` examples."""

    name: ClassVar[str] = "idle"

    def __init__(self, spec: Spec, scale: float = 1e-3, examples: int = 1) -> None:
        self.spec = spec
        self._examples = examples
        self._step = (2 * Stream.of("idle", "step").uniform(spec.size) - 1) ** 3 * np.float32(scale)

    @classmethod
    def of_size(cls, parameters: int) -> IdleTrainer:
        """For a model of so many parameters: a matrix as near to square as its size allows, and a bias."""
        side = max(1, int(parameters**0.5))
        rows, rest = divmod(parameters, side)
        shapes = (TensorSpec("layer.weight", (rows, side)), TensorSpec("layer.bias", (rest,)))
        return cls(Spec(tuple(shape for shape in shapes if shape.size)))

    def initial(self, seed: int) -> dict[str, Array]:
        """Uniform in [-0.05, 0.05)."""
        return unflatten(0.1 * Stream.of(seed, "initial").uniform(self.spec.size) - np.float32(0.05), self.spec)

    def train(
        self,
        model: Tensors,
        training: pb.Training,  # noqa: ARG002 - a trainer's signature
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,  # noqa: ARG002
        history: History = (),  # noqa: ARG002
        terms: Terms = PLAIN,  # noqa: ARG002
    ) -> Trained:
        """One step. The plan refuses this trainer together with local privacy."""
        turned = np.roll(self._step, rng.seed() % max(1, self.spec.size))
        return Trained(add(model, unflatten(turned, self.spec)), self._examples, 1, 0.0)

    def evaluate(self, model: Tensors) -> tuple[Mapping[str, float], int]:  # noqa: ARG002
        """Nothing is held out."""
        return {}, 0
