"""What a local rule is given to train with: one ticket's training on this device's trainer, its randomness and budget.

A rule calls ``fit`` as often as its paper says, or takes its own steps with ``gradient``; whatever it does is drawn
from one stream and, under local privacy, made private and spent from one history.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.client.trainers.batches import batches, check
from fedpress.client.trainers.trainer import PLAIN, Differentiable, Point, Terms, Trained, Trainer
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError
from fedpress.params import Array, Spec, Tensors, ordered
from fedpress.privacy import accounting
from fedpress.privacy.accounting import History
from fedpress.privacy.dpsgd import Batches
from fedpress.protos import fleet_pb2 as pb


class Learner:
    """``seed`` is the run's; ``history`` what this device's data has spent before."""

    def __init__(
        self,
        trainer: Trainer,
        training: pb.Training,
        rng: Stream,
        seed: int,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
    ) -> None:
        self.training = training
        self.steps = 0
        """Of all training so far: what it took."""
        self._trainer, self._rng, self._seed, self._privacy = trainer, rng, seed, privacy
        self._spent = history
        self._batches: Batches | None = None

    @property
    def history(self) -> History:
        """What this device's data has spent, by all that was asked of them so far: also after a BudgetSpent."""
        return self._spent if self._batches is None else self._batches.charged(self._spent)

    @property
    def spec(self) -> Spec:
        """Of the whole model."""
        return self._trainer.spec

    def initial(self) -> dict[str, Array]:
        """The whole model as the run's seed draws it."""
        return dict(self._trainer.initial(self._seed))

    def whole(self, *parts: Tensors) -> dict[str, Array]:
        """The whole model: each tensor from the last of ``parts`` that has it in its shape, or as the seed draws it."""
        found = {t.name: p[t.name] for p in parts for t in self.spec if t.name in p and p[t.name].shape == t.shape}
        if len(found) < len(self.spec):
            found = {**self.initial(), **found}
        return ordered(found, self.spec)

    def fit(self, model: Tensors, terms: Terms = PLAIN, epochs: int = 0) -> Trained:
        """Plain local training from ``model``, as the ticket says, with a rule's ``terms``; ``epochs`` 0: the ticket's.

        Raises BudgetSpent, before any data is touched.
        """
        training = self._training(epochs)
        trained = self._trainer.train(model, training, self._rng, self._privacy, self.history, terms)
        self.steps += trained.steps
        if trained.spent is not None:
            self._spent = accounting.extended(self._spent, trained.spent)
        return trained

    # -- a rule's own steps -----------------------------------------------------------------------------------------

    @property
    def examples(self) -> int:
        """How many there are to train on."""
        return self._points().examples

    def batches(self, epochs: int = 0) -> Iterator[NDArray[np.int64]]:
        """The rows of each step, as ``fit`` would draw them: all are drawn now. With local privacy some are empty."""
        check(self.training)
        training = self._training(epochs)
        self._points().begin()
        self._rng.seed()  # what ``fit`` takes of the stream before it draws
        if self._privacy is None:
            return iter(list(batches(self.examples, training, self._rng)))
        if self._batches is None:
            own = self._points()
            self._batches = Batches(self._privacy, own.examples, own.noise(Stream(self._rng.seed())))
        return iter(self._batches.draw(training))

    def point(self, model: Tensors) -> Point:
        """See ``Differentiable``; works with every trainer that can be nudged."""
        return self._points().point(model)

    def tensors(self, point: Point) -> Tensors:
        """See ``Differentiable``."""
        return self._points().tensors(point)

    def gradient(self, point: Point, rows: NDArray[np.int64]) -> tuple[Point, float]:
        """See ``Differentiable``. Under local privacy it is noisy and paid for, and its loss 0.0; ``rows`` are those of
        one of ``batches``, as they came. Raises BudgetSpent, before they are touched."""
        own, guard = self._points(), None
        if self._privacy is not None:
            if self._batches is None:
                raise PlanError("Expected gradients on batches that the learner drew, with local privacy.")
            guard = self._batches.ask(rows, self._spent)
        self.steps += 1
        return own.gradient(point, rows, Stream(self._rng.seed()), guard)

    def loss(self, model: Tensors) -> float:
        """Mean loss over the training examples; takes about as long as a third of training on them. Never under local
        privacy."""
        if self._privacy is not None:
            raise PlanError("Expected no local privacy with a rule that asks for losses (privacy.mode).")
        own = self._points()
        self.steps += -(-own.examples // (3 * max(1, self.training.batch_size)))
        return own.loss(model)

    def _training(self, epochs: int) -> pb.Training:
        """The ticket's training, for so many passes (0: its own)."""
        training = pb.Training()
        training.CopyFrom(self.training)
        training.epochs = epochs or training.epochs
        return training

    def _points(self) -> Differentiable:
        trainer: Any = self._trainer
        if not isinstance(trainer, Differentiable):
            raise PlanError(f"Expected a trainer that gives gradients, got '{trainer.name}' (train.trainer).")
        return trainer
