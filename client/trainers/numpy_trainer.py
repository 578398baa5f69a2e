"""The NumPy trainer: SGD on a multilayer perceptron, private too. No torch, nothing but NumPy.

It proves that a local rule means the same on every trainer, and is the seat of training without torch on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.client.trainers.batches import batches, check
from fedpress.client.trainers.numpy_clipping import noisy
from fedpress.client.trainers.numpy_network import Network
from fedpress.client.trainers.trainer import PLAIN, Point, Terms, Trained
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError
from fedpress.params import Array, Spec, Tensors, ordered
from fedpress.privacy.accounting import History, Steps, extended
from fedpress.privacy.dpsgd import Mechanism, mechanism, pay, plan_steps
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.task import ClientData, accuracy


class NumpyTrainer:
    """Trains on one client's ``data``: ``x`` is flattened to float32[n, inputs], ``y`` holds classes. ``initial``
    draws a model from a seed. ``secret_noise`` as for ``TorchTrainer``."""

    name: ClassVar[str] = "numpy"

    def __init__(
        self, initial: Callable[[int], Tensors], data: ClientData, seed: int = 0, secret_noise: bool = True
    ) -> None:
        self._initial, self._data, self._secret_noise = initial, data, secret_noise
        self._spec = Spec.of(initial(seed))
        self._network = Network.of(self._spec)

    @property
    def spec(self) -> Spec:
        """Of the whole model."""
        return self._spec

    @property
    def examples(self) -> int:
        """Rows of the training data."""
        return len(self._data.train)

    def initial(self, seed: int) -> Tensors:
        """As drawn."""
        return self._initial(seed)

    def evaluate(self, model: Tensors) -> tuple[dict[str, float], int]:
        """Accuracy and loss on the held-out data."""
        split = self._data.held_out
        if not len(split):
            return {}, 0
        logits = self._network.forward(model, split.x)[-1]
        return {**accuracy(logits, split.y), "loss": self._network.loss(logits, split.y)}, len(split)

    def train(
        self,
        model: Tensors,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
        terms: Terms = PLAIN,
    ) -> Trained:
        """See ``Trainer``. Raises PlanError for an optimiser other than SGD."""
        if training.optimizer != "sgd":
            raise PlanError(f"Expected SGD, got '{training.optimizer}': the trainer 'numpy' has nothing else yet.")
        if privacy is not None and terms.contrast is not None:
            raise PlanError("Expected no term on representations with local privacy, whose gradient is not clipped.")
        check(training)
        point, velocity = self.point(model), dict[str, Array]()
        rng.seed()  # what a trainer with dropout takes of the stream: so that all see the same batches
        total, seen, steps = 0.0, 0, 0
        guard, spent = self._guarded(training, rng, privacy, history)
        drawn = batches(self.examples, training, rng) if guard is None else _drawn(guard, spent)
        for rows in drawn:
            if guard is None:
                gradients, loss = self._gradients(point, rows, terms)
                chosen = {n: g for n, g in gradients.items() if terms.only is None or n in terms.only}
                _clip(chosen, training.max_grad_norm)
            else:
                chosen, loss = self._noisy(point, rows, terms.only, guard)
            if terms.nudge is not None:
                terms.nudge(point, chosen)
            for name, gradient in chosen.items():
                if training.weight_decay:
                    gradient = gradient + np.float32(training.weight_decay) * point[name]
                if training.momentum:
                    before = velocity.get(name)
                    gradient = gradient if before is None else np.float32(training.momentum) * before + gradient
                    velocity[name] = gradient
                point[name] -= np.float32(training.lr) * gradient
            total, seen, steps = total + loss * len(rows), seen + len(rows), steps + 1
        return Trained(ordered(point, self._spec), self.examples, steps, total / max(1, seen), spent)

    def begin(self) -> None:
        """There is nothing beside the tensors."""

    def point(self, model: Tensors) -> Point:
        """Copies."""
        return {name: np.array(array) for name, array in model.items()}

    def tensors(self, point: Mapping[str, Any]) -> Tensors:
        """Copies."""
        return {name: np.array(array) for name, array in point.items()}

    def noise(self, rng: Stream) -> Noise:
        """See ``Differentiable``."""
        return Noise.secret() if self._secret_noise else Noise.seeded(rng)

    def gradient(
        self,
        point: Point,
        rows: NDArray[np.int64],
        rng: Stream,  # noqa: ARG002 - nothing in here draws
        guard: Mechanism | None = None,
    ) -> tuple[Point, float]:
        """See ``Differentiable``."""
        if guard is None:
            return self._gradients(point, rows, PLAIN)
        return self._noisy(point, rows, None, guard)[0], 0.0

    def loss(self, model: Tensors) -> float:
        """See ``Differentiable``."""
        train = self._data.train
        return self._network.loss(self._network.forward(model, train.x)[-1], train.y) if len(train) else 0.0

    def _gradients(self, point: Mapping[str, Any], rows: NDArray[np.int64], terms: Terms) -> tuple[Point, float]:
        x, y = self._data.train.x[rows], self._data.train.y[rows]
        flows = self._network.forward(point, x)
        pull = None
        if terms.contrast is not None:
            others = [self._network.forward(model, x)[-2] for model in terms.contrast.models]
            pull = terms.contrast.gradient(flows[-2], *others)
        return self._network.backward(point, flows, y, pull), self._network.loss(flows[-1], y)

    def _guarded(
        self, training: pb.Training, rng: Stream, privacy: pb.LocalPrivacy | None, history: History
    ) -> tuple[Mechanism | None, Steps | None]:
        """What makes gradients private, and what it costs. Raises PrivacyError, BudgetSpent."""
        if privacy is None or not self.examples:
            return None, None
        spend = plan_steps(self.examples, training, privacy)
        pay(history, extended(history, spend), privacy)
        return mechanism(self.examples, privacy, spend.sample_rate, self.noise(rng)), spend

    def _noisy(
        self, point: Mapping[str, Any], rows: NDArray[np.int64], only: Collection[str] | None, guard: Mechanism
    ) -> tuple[Point, float]:
        x, y = self._data.train.x[rows], self._data.train.y[rows]
        flows = self._network.forward(point, x)
        return noisy(self._network, point, flows, y, only, guard), self._network.loss(flows[-1], y) if len(y) else 0.0


def _drawn(guard: Mechanism, spent: Steps | None) -> Iterator[NDArray[np.int64]]:
    """The examples of each private step."""
    for _ in range(spent.steps if spent else 0):
        yield guard.draw()


def _clip(gradients: Mapping[str, Array], limit: float) -> None:
    """Scale to an L2 norm of at most ``limit`` (0: as they are), in place, as torch does."""
    if limit <= 0:
        return
    norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
    share = np.float32(min(1.0, limit / (norm + 1e-6)))
    for gradient in gradients.values():
        gradient *= share
