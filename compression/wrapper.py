"""What wrappers have in common: they stand first in a text and work on whole updates, around a whole chain.

    ef:0.9,stale=5+topk:0.01+uniform:8       id, options if any differ from their defaults, and what is inside

A wrapper makes no bytes of its own: its payload is the inner codec's. It changes what the inner codec is given, by what
it remembers, so what one payload loses comes back in a later one. That cannot work around a codec that may lose more
than there was: what is lost would grow from round to round. Such a chain is refused.

**Progress.** Nor can it work where everything is lost again and again, as of a thousand numbers of one size by a chain
that sends ten. Around a chain that does not promise to keep a share (law 6), a payload begins with a byte: ``USUAL``,
or ``FINER`` where the chain would have lost more than ``1 - PROGRESS`` of the energy; then ``nmse`` codes the update.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

from fedpress.compression.chain import Chain, finishes
from fedpress.compression.codec import NOTHING, Context, State, Trip, Wire, part, prefixed
from fedpress.compression.nmse import Nmse
from fedpress.compression.options import Options, build, options_of, values_of
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors

#: Names in a wrapper's state: the inner codec's own, and the round of the last acknowledged update (int64, 0: none).
INNER: Final = "inner"
ROUND: Final = "round"
#: The first byte around a chain that promises no progress, and what codes the update in the second case.
USUAL: Final = b"\xa0"
FINER: Final = b"\xaf"
INSTEAD: Final = Nmse()
#: More rounds than that count as so many: nothing is left by then, or nothing fades.
_LONGEST: Final = 10_000


@dataclass(frozen=True)
class Wrapper(Options, ABC):
    """Base of all wrappers. By default the receiver sees only the inner codec."""

    inner: Stage | Chain
    id: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Stage | Chain):
            raise CodecError(f"Expected a stage or a chain inside '{self.id}', got '{self.inner.text}'.")
        if isinstance(self.inner, Stage) and not finishes(self.inner):
            raise CodecError(
                f"Expected a last stage after '{self.inner.text}' inside '{self.id}', such as 'raw' or 'int8'."
            )
        if self.inner.keeps < 0:
            raise CodecError(
                f"Expected no stage inside '{self.id}' that can lose more than there was, since that would grow from "
                f"round to round, got '{self.inner.text}'. {_way_out(self.inner, self.id)}"
            )

    @property
    def text(self) -> str:
        """The id, the options if any differs from its default, ``+`` and the inner text."""
        usual = self == type(self)(self.inner)
        return f"{self.id if usual else super().text}+{self.inner.text}"

    @property
    def guarded(self) -> bool:
        """Payloads begin with a byte, because the inner chain promises no progress."""
        return not self.inner.contractive

    @property
    def commutes_with_sum(self) -> bool:
        """As the inner codec: the receiver sees only that. Never where it may be replaced."""
        return self.inner.commutes_with_sum and not self.guarded

    @property
    def unbiased(self) -> bool:
        """One payload alone is not what was encoded; only sums over rounds are."""
        return False

    @property
    def keeps(self) -> float:
        """One payload alone may carry more of the past than of the present."""
        return -1.0

    @property
    def contractive(self) -> bool:
        """See ``keeps``."""
        return False

    def memory(self, spec: Spec) -> State:
        """The inner codec's: the receiver sees only that."""
        return prefixed({INNER: self.inner.memory(spec)})

    @abstractmethod
    def init(self, spec: Spec) -> State:
        """What the wrapper remembers, and the inner state."""

    def rest(self, spec: Spec) -> Spec:
        """Nothing is left."""
        return self.inner.rest(spec)

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """See ``Codec.encode``. Raises SpecError if the state is of another model."""
        return self.trip(tensors, state, context, rng)[:2]

    @abstractmethod
    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """See ``Codec.trip``. Raises SpecError if the state is of another model."""

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """As the inner codec. Raises DecodeError."""
        tensors, inner = self._received(self.inner, wire, part(state, INNER), context, spec)
        return tensors, prefixed({INNER: inner})

    def _sent(self, inner: Stage | Chain, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """What ``inner`` makes of ``tensors``, or ``INSTEAD`` where it keeps too little of them."""
        made = inner.trip(tensors, state, context, rng)
        if not self.guarded:
            return made
        first = USUAL
        if made.loss.stalls:
            first, made = FINER, INSTEAD.trip(tensors, NOTHING, context, rng)._replace(state=made.state)
        return made._replace(wire=Wire(first + bytes(made.wire.side), {}))

    def _received(
        self, inner: Stage | Chain, wire: Wire, state: State, context: Context, spec: Spec
    ) -> tuple[Tensors, State]:
        """Inverse of ``_sent``; ``state`` is that of ``inner``. Raises DecodeError."""
        if not self.guarded:
            return inner.decode(wire, state, context, spec)
        first, rest = bytes(wire.side[:1]), Wire(wire.side[1:], {})
        if first == FINER:
            return INSTEAD.decode(rest, NOTHING, context, spec)[0], state
        if first != USUAL:
            raise DecodeError(f"Expected {USUAL!r} or {FINER!r} before a payload of '{inner.text}', got {first!r}.")
        if len(rest.side) > (most := inner.max_bytes(spec)):
            raise DecodeError(f"Expected at most {most} bytes of '{inner.text}', got {len(rest.side)}.")
        return inner.decode(rest, state, context, spec)

    def error_bound(self, tensors: Tensors) -> float:
        """The inner codec's, for a first update, or what replaces it."""
        return self._bound(self.inner, tensors)

    def _bound(self, inner: Stage | Chain, tensors: Tensors) -> float:
        bound = inner.error_bound(tensors)
        return max(bound, INSTEAD.error_bound(tensors)) if self.guarded else bound

    def max_bytes(self, spec: Spec) -> int:
        """As the inner codec, or what replaces it."""
        return self._most(self.inner, spec)

    def _most(self, inner: Stage | Chain, spec: Spec) -> int:
        size = inner.max_bytes(spec)
        return 1 + max(size, INSTEAD.max_bytes(spec)) if self.guarded else size

    def _recall(self, state: State, key: str, spec: Spec) -> Tensors:
        """The tensors of ``spec`` that ``state`` has under ``key``. Raises SpecError."""
        kept = part(state, key)
        found = {name: kept[name] for name in spec.names if name in kept}
        spec.check(found, f"the {key} of '{self.id}'")
        return found


def faded(share: float, rounds: int) -> float:
    """``share`` to the power of ``rounds``. Product by product: alike everywhere, as ``**`` is not."""
    return math.prod([share] * min(rounds, _LONGEST))


def stages_of(codec: Stage | Chain) -> tuple[Stage, ...]:
    """The stages of a chain; of a single stage, itself."""
    return codec.stages if isinstance(codec, Chain) else (codec,)


def _way_out(inner: Stage | Chain, wrapper: str) -> str:
    """What would go instead, for people."""
    turned = [stage if stage.keeps >= 0 else _bounded(stage) for stage in stages_of(inner)]
    if all(turned):
        words = "+".join(stage.text for stage in turned if stage is not None)
        return f"'{words}' would go, or the chain as it is without '{wrapper}'."
    return f"Leave out '{wrapper}', or take a biased code such as 'topk', 'ecsq' or 'int8'."


def _bounded(stage: Stage) -> Stage | None:
    """The stage with one switch or word turned so that it never loses more than there was, if there is one."""
    for option in options_of(type(stage)):
        words = option.kind if isinstance(option.kind, tuple) else (False, True) if option.kind is bool else ()
        for word in words:
            turned = build(type(stage), {**values_of(stage), option.name: word})
            if turned.keeps >= 0:
                return turned
    return None
