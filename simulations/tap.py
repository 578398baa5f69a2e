"""What a codec's last stages really see, and what a receiver makes of it.

Around a quantiser stand feedback and prediction: it is given neither the update nor what the round before left, but
both, less what was foreseen. A tap between them and it notes what passes, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from fedpress.client.probe import Encoding
from fedpress.compression.chain import Chain
from fedpress.compression.codec import Codec, Context, State, Wire
from fedpress.compression.payload import seal
from fedpress.compression.predict import Predict
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import Wrapper, stages_of
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, flatten

#: Stages that lose nothing and only change what is left to code.
_BEFORE: Final = (Predict,)


class Passed(NamedTuple):
    """One payload, and the sender's new state. ``seen``: what was to be coded; ``arrived``: what a receiver has of
    it."""

    seen: Tensors
    arrived: Tensors
    payload: bytes
    state: State

    @property
    def nmse(self) -> float:
        """Squared error over squared norm, of what was seen."""
        seen, arrived = flatten(self.seen).astype(np.float64), flatten(self.arrived)
        return float(np.sum(np.square(seen - arrived)) / np.sum(np.square(seen)))


def passed(encoding: Encoding) -> Passed:
    """Encode as the sender does, with a tap. Raises CodecError and SpecError as ``seal`` does."""
    noted: list[tuple[Tensors, Tensors]] = []
    codec = _tapped(encoding.codec, lambda seen, arrived: noted.append((seen, arrived)))
    payload, state = seal(codec, encoding.delta, encoding.state, encoding.context, encoding.rng)
    if not noted:
        raise CodecError(f"Cannot look into '{encoding.codec.text}': it has no stage that encodes the whole update.")
    return Passed(*noted[-1], payload, state)


def bare(codec: Codec) -> bool:
    """No feedback and no prediction: a payload depends on the update alone."""
    return isinstance(codec, Stage | Chain) and not isinstance(stages_of(codec)[0], _BEFORE)


def _tapped(codec: Codec, note: Callable[[Tensors, Tensors], object]) -> Codec:
    if isinstance(codec, Wrapper):
        return replace(codec, inner=_around(codec.inner, note))
    if isinstance(codec, Stage | Chain):
        return _around(codec, note)
    raise CodecError(f"Expected a wrapper, a chain or a stage, got '{codec.text}'.")


def _around(codec: Stage | Chain, note: Callable[[Tensors, Tensors], object]) -> Stage | Chain:
    """``codec`` with a tap before its first stage that loses anything."""
    stages = stages_of(codec)
    first = next(i for i, stage in enumerate(stages) if not isinstance(stage, _BEFORE))
    rest = stages[first:]
    tap = _Tap(rest[0] if len(rest) == 1 else Chain(rest), note)
    return Chain((*stages[:first], tap)) if first else tap


@dataclass(frozen=True)
class _Tap(Stage):
    """The codec it wraps, in all it does."""

    inner: Stage | Chain
    note: Callable[[Tensors, Tensors], object]

    @property
    def text(self) -> str:
        return self.inner.text

    @property
    def unbiased(self) -> bool:
        return self.inner.unbiased

    @property
    def keeps(self) -> float:
        return self.inner.keeps

    def init(self, spec: Spec) -> State:
        return self.inner.init(spec)

    def memory(self, spec: Spec) -> State:
        return self.inner.memory(spec)

    def rest(self, spec: Spec) -> Spec:
        return self.inner.rest(spec)

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        return self.echo(tensors, state, context, rng)[:2]

    def echo(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State, Tensors]:
        wire, new, arrived = self.inner.echo(tensors, state, context, rng)
        self.note(tensors, arrived)
        return wire, new, arrived

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        return self.inner.decode(wire, state, context, spec)

    def error_bound(self, tensors: Tensors) -> float:
        return self.inner.error_bound(tensors)

    def max_bytes(self, spec: Spec) -> int:
        return self.inner.max_bytes(spec)
