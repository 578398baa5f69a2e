"""What a trainer is: it turns a model and the device's own data into a better model.

A trainer sees whole models (shared and personal tensors together, in its ``spec``'s order) and knows nothing of rounds,
codecs or the wire. All its randomness comes from the stream it is given, so that a simulation repeats exactly.

Two ways to use one. ``train`` is the whole of plain local training, with what a strategy's local rule adds to it as
``Terms``. Rules that need more than that, such as gradients at other points, write their own loop over ``gradient``
(``Differentiable``). Local privacy guards both, each gradient by itself. The numbers a rule sees are the trainer's own
arrays, NumPy's or torch's: a rule uses only ``+ - * /`` on them, which mean the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors
from fedpress.privacy.accounting import History, Steps
from fedpress.privacy.dpsgd import Mechanism
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb

#: A model as the trainer's own arrays (float32, by name): NumPy's or torch's.
Point: TypeAlias = dict[str, Any]
#: ``nudge(point, gradients)``: change the ``gradients`` of a step at ``point`` in place.
Nudge: TypeAlias = Callable[[Mapping[str, Any], Point], None]


@dataclass(frozen=True)
class Contrast:
    """A term on representations: what the model's last layer is given, arrays[n, ...] for n examples.

    ``models`` are whole models whose representations of the same examples are compared with. ``gradient(z, *others)``
    is the term's gradient with respect to ``z``, of its mean over the n examples.
    """

    models: tuple[Tensors, ...]
    gradient: Callable[..., Any]


@dataclass(frozen=True)
class Terms:
    """What a local rule adds to plain training.

    ``nudge`` acts on each step's gradients, after they were clipped (and, under local privacy, noised), before the
    optimiser's step. ``only``: names of the tensors that are trained; None: all. Buffers follow their layers anyway.
    """

    nudge: Nudge | None = None
    only: Collection[str] | None = None
    contrast: Contrast | None = None


PLAIN = Terms()


@dataclass(frozen=True)
class Trained:
    """What training gave. ``loss`` is the mean over the examples seen; ``spent`` is None without local privacy."""

    tensors: Tensors
    examples: int
    steps: int
    loss: float
    spent: Steps | None = None


class Trainer(Protocol):
    """See the module's docstring."""

    name: ClassVar[str]
    """As in the registry and in plans; what the device tells the server it can do."""

    @property
    def spec(self) -> Spec:
        """Every tensor of the model, personal ones included."""

    def initial(self, seed: int) -> Tensors:
        """The model before any training: the same on every device for the same seed."""

    def train(
        self,
        model: Tensors,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
        terms: Terms = PLAIN,
    ) -> Trained:
        """Train on the local data. ``model`` is not changed. ``history`` is what earlier training spent.

        Raises BudgetSpent, before any data is touched, where ``privacy`` sets a budget that this would pass.
        """

    def evaluate(self, model: Tensors) -> tuple[Mapping[str, float], int]:
        """Metrics on the device's held-out data, and how many examples are behind them ({} and 0 if none)."""


@runtime_checkable
class Differentiable(Trainer, Protocol):
    """A trainer that also lets a rule take its own steps."""

    @property
    def examples(self) -> int:
        """How many there are to train on."""

    def begin(self) -> None:
        """Before a rule's own steps: what the model has beside its tensors, such as counters, is as the seed draws it,
        so that what comes of the steps depends on the point, the data and the stream alone."""

    def point(self, model: Tensors) -> Point:
        """A copy of a model (or of some of its tensors) as the trainer's own arrays."""

    def tensors(self, point: Mapping[str, Any]) -> Tensors:
        """Inverse of ``point``: a copy, as NumPy's float32."""

    def noise(self, rng: Stream) -> Noise:
        """Where local privacy draws from: the operating system or, where that is to repeat, ``rng``."""

    def gradient(
        self, point: Point, rows: NDArray[np.int64], rng: Stream, guard: Mechanism | None = None
    ) -> tuple[Point, float]:
        """Gradients of the mean loss over the training examples ``rows``, of all trainable tensors, and that loss.
        ``rng``: of what a layer draws, such as dropout.

        With ``guard`` they are the noisy mean of clipped gradients, and the loss is 0.0: it is private, nothing hides
        it. ``point`` is a whole model. Its buffers, such as running statistics, move as in training; nothing else does.
        """

    def loss(self, model: Tensors) -> float:
        """Mean loss over the training examples, nothing changed; 0.0 without any."""
