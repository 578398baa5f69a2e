"""What the codecs that stand in a chain have in common: options, no memory, and a way to bound what they leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from fedpress.compression.codec import NOTHING, PROGRESS, Context, Loss, State, Trip, Wire, assumed
from fedpress.compression.options import Options
from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors

_NO_SPEC = Spec(())


class Stage(Options, ABC):
    """One stage of a chain; the laws are in ``fedpress.compression.codec``. By default without memory, and the last."""

    commutes_with_sum: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False  #: whether it can only stand where tensors still are the model's: first

    def init(self, spec: Spec) -> State:  # noqa: ARG002  # the contract's signature
        """Nothing to remember."""
        return NOTHING

    def memory(self, spec: Spec) -> State:  # noqa: ARG002
        """Nothing to remember."""
        return NOTHING

    def rest(self, spec: Spec) -> Spec:  # noqa: ARG002
        """Nothing is left for another codec."""
        return _NO_SPEC

    def largest_rest(self, tensors: Tensors) -> Tensors:  # noqa: ARG002
        """Tensors of ``rest(spec)`` that bound, in sorted order of magnitude, what any seed would leave."""
        return {}

    @property
    def block_size(self) -> int:
        """Numbers that it codes together, at the user's choice: a model with fewer is none for it."""
        return 1

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """The mean over seeds of what is decoded is what was encoded."""

    @property
    @abstractmethod
    def keeps(self) -> float:
        """See ``Codec.keeps``."""

    @property
    def contractive(self) -> bool:
        """See ``Codec.contractive``."""
        return self.keeps >= PROGRESS

    @abstractmethod
    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """See ``Codec.encode``."""

    def echo(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State, Tensors]:
        """``encode``, and what a receiver will make of it: what feedback needs. Of a stage that leaves nothing."""
        wire, new = self.encode(tensors, state, context, rng)
        spec = Spec.of(tensors)
        return wire, new, self.decode(wire, assumed(self, state, spec), context, spec)[0]

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """See ``Codec.trip``."""
        wire, new, arrived = self.echo(tensors, state, context, rng)
        return Trip(wire, new, arrived, Loss.of(tensors, arrived))

    @abstractmethod
    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """See ``Codec.decode``. Raises DecodeError."""

    @abstractmethod
    def error_bound(self, tensors: Tensors) -> float:
        """See ``Codec.error_bound``. Must not decrease when magnitudes grow."""

    @abstractmethod
    def max_bytes(self, spec: Spec) -> int:
        """See ``Codec.max_bytes``."""
