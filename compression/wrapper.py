"""What wrappers have in common: they stand first in a text and work on whole updates, around a whole chain.

    ef:0.9,stale=5+topk:0.01+uniform:8       id, options if any differ from their defaults, and what is inside

A wrapper makes no bytes of its own: its payload is the inner codec's. It changes what the inner codec is given, by what
it remembers, so what one payload loses comes back in a later one. That cannot work around a codec that may lose more
than there was: what is lost would grow from round to round. Such a chain is refused.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

from fedpress.compression.chain import Chain, finishes
from fedpress.compression.codec import Context, State, Wire, part, prefixed
from fedpress.compression.options import Options, build, options_of, values_of
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors

#: Names in a wrapper's state: the inner codec's own, and the round of the last acknowledged update (int64, 0: none).
INNER: Final = "inner"
ROUND: Final = "round"
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
        if not self.inner.contractive:
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
    def commutes_with_sum(self) -> bool:
        """As the inner codec: the receiver sees only that."""
        return self.inner.commutes_with_sum

    @property
    def unbiased(self) -> bool:
        """One payload alone is not what was encoded; only sums over rounds are."""
        return False

    @property
    def contractive(self) -> bool:
        """One payload alone may carry more of the past than of the present."""
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

    @abstractmethod
    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """See ``Codec.encode``. Raises SpecError if the state is of another model."""

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """As the inner codec. Raises DecodeError."""
        tensors, inner = self.inner.decode(wire, part(state, INNER), context, spec)
        return tensors, prefixed({INNER: inner})

    def error_bound(self, tensors: Tensors) -> float:
        """The inner codec's, for a first update."""
        return self.inner.error_bound(tensors)

    def max_bytes(self, spec: Spec) -> int:
        """As the inner codec."""
        return self.inner.max_bytes(spec)

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
    turned = [stage if stage.contractive else _contractive(stage) for stage in stages_of(inner)]
    if all(turned):
        words = "+".join(stage.text for stage in turned if stage is not None)
        return f"'{words}' would go, or the chain as it is without '{wrapper}'."
    return f"Leave out '{wrapper}', or take a biased code such as 'topk', 'ecsq' or 'int8'."


def _contractive(stage: Stage) -> Stage | None:
    """The stage with one switch or word turned so that it is contractive, if there is one."""
    for option in options_of(type(stage)):
        words = option.kind if isinstance(option.kind, tuple) else (False, True) if option.kind is bool else ()
        for word in words:
            turned = build(type(stage), {**values_of(stage), option.name: word})
            if turned.contractive:
                return turned
    return None
