"""Chain: one codec after the other, each working on what the one before it left.

The bytes of the stages follow one another, the last stage's without a length, each other's behind its length as a
base-128 varint (``fedpress.compression.varint``), unless it is a stage that never has any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from fedpress.compression.codec import PROGRESS, Bytes, Context, Loss, State, Trip, Wire, assumed, part, prefixed
from fedpress.compression.options import Options
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.compression.varint import read_varint, varint
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors, TensorSpec

_PROBE: Final = Spec((TensorSpec("probe", (2, 2)),))
_MOST_STAGES: Final = 8


@dataclass(frozen=True)
class Chain(Options):
    """Two or more stages, of which the last, and only the last, leaves nothing."""

    stages: tuple[Stage, ...]
    id: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise CodecError(f"Expected plain stages in a chain, got '{stage.text}'; 'ef' stands first of all.")
        if not 2 <= len(self.stages) <= _MOST_STAGES:
            raise CodecError(f"Expected 2 to {_MOST_STAGES} stages in a chain, got {len(self.stages)}.")
        for stage, follower in zip(self.stages, self.stages[1:], strict=False):
            if finishes(stage):
                raise CodecError(f"Expected nothing after the last stage '{stage.text}', got '{follower.text}'.")
            if follower.needs_model:
                raise CodecError(f"Expected '{follower.text}' first among the stages, got it after '{stage.text}'.")
        if not finishes(self.stages[-1]):
            raise CodecError(f"Expected a last stage after '{self.stages[-1].text}', such as 'raw' or 'int8'.")

    @property
    def text(self) -> str:
        """The stages' texts with ``+`` between them."""
        return "+".join(stage.text for stage in self.stages)

    @property
    def commutes_with_sum(self) -> bool:
        """If all stages do."""
        return all(stage.commutes_with_sum for stage in self.stages)

    @property
    def unbiased(self) -> bool:
        """If all stages are: decoding is linear in the rest, so means pass through."""
        return all(stage.unbiased for stage in self.stages)

    @property
    def keeps(self) -> float:
        """A share of a share; what nothing is promised of stays so."""
        shares = [stage.keeps for stage in self.stages]
        return math.prod(shares) if min(shares) >= 0 else -1.0

    @property
    def contractive(self) -> bool:
        """See ``Codec.contractive``."""
        return self.keeps >= PROGRESS

    def init(self, spec: Spec) -> State:
        """The states of the stages, under their positions."""
        return prefixed({str(i): s.init(of) for i, (s, of) in enumerate(self._with_specs(spec))})

    def memory(self, spec: Spec) -> State:
        """What a receiver keeps for the stages, under their positions."""
        return prefixed({str(i): s.memory(of) for i, (s, of) in enumerate(self._with_specs(spec))})

    def rest(self, spec: Spec) -> Spec:
        """Nothing is left."""
        return self.stages[-1].rest(spec)

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Each stage encodes what the one before it left."""
        spec = Spec.of(tensors)
        sides, states, tensors = self._all_but_last(tensors, state, context, rng)
        key, last = str(len(sides)), self.stages[-1]
        wire, states[key] = last.encode(tensors, part(state, key), context, rng)
        return Wire(self._joined(sides, wire.side, spec), wire.rest), prefixed(states)

    def echo(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State, Tensors]:
        """See ``Stage.echo``: the last stage's own, then back through the others."""
        spec = Spec.of(tensors)
        *before, _ = self._with_specs(spec)
        sides, states, tensors = self._all_but_last(tensors, state, context, rng)
        key, last = str(len(sides)), self.stages[-1]
        wire, states[key], tensors = last.echo(tensors, part(state, key), context, rng)
        for i, (stage, of) in reversed(list(enumerate(before))):
            remembered = assumed(stage, part(state, str(i)), of)
            tensors, _ = stage.decode(Wire(sides[i], tensors), remembered, context, of)
        return Wire(self._joined(sides, wire.side, spec), wire.rest), prefixed(states), tensors

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """See ``Codec.trip``."""
        wire, new, arrived = self.echo(tensors, state, context, rng)
        return Trip(wire, new, arrived, Loss.of(tensors, arrived))

    def _all_but_last(
        self, tensors: Tensors, state: State, context: Context, rng: Stream
    ) -> tuple[list[Bytes], dict[str, State], Tensors]:
        """What the stages before the last one send, their new states, and what they leave."""
        sides: list[Bytes] = []
        states: dict[str, State] = {}
        for i, stage in enumerate(self.stages[:-1]):
            wire, states[str(i)] = stage.encode(tensors, part(state, str(i)), context, rng)
            sides.append(wire.side)
            tensors = wire.rest
        return sides, states, tensors

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """From the last stage back to the first. Raises DecodeError."""
        tensors, states = wire.rest, {}
        sides = self._split(wire.side, spec)
        for i, (stage, of) in reversed(list(enumerate(self._with_specs(spec)))):
            tensors, states[str(i)] = stage.decode(Wire(sides[i], tensors), part(state, str(i)), context, of)
        return tensors, prefixed(states)

    def error_bound(self, tensors: Tensors) -> float:
        """Squared sum of the stages' errors: decoding keeps distances, so Minkowski's inequality holds."""
        error = 0.0
        for stage in self.stages:
            error += math.sqrt(stage.error_bound(tensors))
            tensors = stage.largest_rest(tensors)
        return error**2

    def max_bytes(self, spec: Spec) -> int:
        """The stages' bounds and their lengths."""
        *before, last = (stage.max_bytes(of) for stage, of in self._with_specs(spec))
        return last + sum(size + len(varint(size)) for size in before if size)

    def _joined(self, before: Sequence[Bytes], last: Bytes, spec: Spec) -> bytes:
        framed = zip(before, self._with_specs(spec), strict=False)
        pieces = [(varint(len(side)), side) for side, (stage, of) in framed if stage.max_bytes(of)]
        return b"".join([*(piece for pair in pieces for piece in pair), last])

    def _split(self, data: Bytes, spec: Spec) -> list[Bytes]:
        sides: list[Bytes] = []
        at = 0
        for stage, of in self._with_specs(spec)[:-1]:
            size = 0
            if stage.max_bytes(of):
                size, at = read_varint(data, at)
            if size > len(data) - at:
                raise DecodeError(f"Expected {size} bytes of a stage, got {len(data) - at}.")
            sides.append(data[at : at + size])
            at += size
        return [*sides, data[at:]]

    def _with_specs(self, spec: Spec) -> list[tuple[Stage, Spec]]:
        pairs = []
        for stage in self.stages:
            pairs.append((stage, spec))
            spec = stage.rest(spec)
        return pairs


def finishes(stage: Stage) -> bool:
    """True if ``stage`` leaves nothing, whatever it is given."""
    return not len(stage.rest(_PROBE))
