"""EF21: what travels is the difference to the sender's own last update, as it arrived (Richtárik, Sokolov, Fatkhullin
2021, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback").

Both ends remember what was decoded last, and a payload moves that memory: g <- g + C(x - g). The update converges to
what it should be instead of carrying a residual, so that what is sent shrinks as updates repeat themselves. Unlike with
``ef`` the receiver needs memory too: 4 bytes per parameter and sender, which the server keeps in its store.

Deviation from the paper: updates of rounds, not gradients, and ``scale`` below 1 lets the past fade: x - scale * g is
coded. One multiplication and one addition per parameter, so that both ends remember the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from fedpress.compression.codec import Context, State, Trip, Wire, part, prefixed
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import INNER, Wrapper
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, add, subtract, zeros

_LAST: Final = "last"


@dataclass(frozen=True)
class EF21(Wrapper):
    """Codes the difference to ``scale`` times the last update, as it arrived; both ends remember that one."""

    scale: float = 1.0
    id: ClassVar[str] = "ef21"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale <= 1:
            raise CodecError(f"Expected 0 < scale <= 1, got {self.scale} (ef21.scale).")

    @property
    def commutes_with_sum(self) -> bool:
        """Never: a receiver that knows only sums cannot remember each sender's last update."""
        return False

    @property
    def unbiased(self) -> bool:
        """As the inner codec: what is taken off is added back."""
        return self.inner.unbiased

    def init(self, spec: Spec) -> State:
        """A last update of zeros (4 bytes per parameter), and the inner state."""
        return prefixed({_LAST: zeros(spec), INNER: self.inner.init(spec)})

    def memory(self, spec: Spec) -> State:
        """The same last update, and what the inner codec's receiver remembers."""
        return prefixed({_LAST: zeros(spec), INNER: self.inner.memory(spec)})

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """Of what differs from the last update. Raises SpecError if that is of another model."""
        foreseen = self._foreseen(state, Spec.of(tensors))
        made = self._sent(self.inner, subtract(tensors, foreseen), part(state, INNER), context, rng)
        arrived = add(foreseen, made.arrived)
        return made._replace(arrived=arrived, state=prefixed({_LAST: arrived, INNER: made.state}))

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """The last update and what is new. Raises DecodeError; SpecError if ``state`` is of another model."""
        foreseen = self._foreseen(state, spec)
        change, inner = self._received(self.inner, wire, part(state, INNER), context, spec)
        with np.errstate(over="ignore", invalid="ignore"):  # refused by whoever asks whether it is finite
            arrived = add(foreseen, change)
        return arrived, prefixed({_LAST: arrived, INNER: inner})

    def _foreseen(self, state: State, spec: Spec) -> Tensors:
        last = self._recall(state, _LAST, spec)
        return last if self.scale == 1 else {n: np.float32(self.scale) * a for n, a in last.items()}
