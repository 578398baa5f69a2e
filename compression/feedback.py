"""Error feedback: what a lossy codec left out of one update is added to the next (Seide et al. 2014, "1-Bit SGD";
Karimireddy et al. 2019, "Error Feedback Fixes SignSGD").

The sender decodes its own payload and remembers the difference. Over rounds the errors telescope: the sum of what was
decoded is the sum of what was encoded, less the last residual. The receiver needs nothing: the inner codec's payload
is the payload. Deviation from the papers: feedback acts on whole updates (deltas of a round), not on single
gradients.

**Fading.** A residual belongs to the model it was made on. After k rounds ``decay**k`` of it still counts, and none of
it once ``stale`` rounds were missed (0: however many); a round is missed if the device has no acknowledged update in
it. With ``decay`` 1 the sums telescope; 0.9 was measured better everywhere: what is left over from a larger learning
rate, or from a model long gone, does harm when it is sent at last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from fedpress.compression.codec import Context, State, Trip, part, prefixed
from fedpress.compression.plus import plus
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import INNER, ROUND, Wrapper, faded
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, zeros

_RESIDUAL: Final = "residual"


@dataclass(frozen=True)
class ErrorFeedback(Wrapper):
    """Adds what earlier updates lost to the next one: ``decay`` of it per round, nothing once ``stale`` were missed."""

    decay: float = 1.0
    stale: int = 0
    id: ClassVar[str] = "ef"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise CodecError(f"Expected 0 <= decay <= 1, got {self.decay} (ef.decay).")
        if self.stale < 0:
            raise CodecError(f"Expected a number of rounds, or 0 for never, got {self.stale} (ef.stale).")

    def init(self, spec: Spec) -> State:
        """A residual of zeros (4 bytes per parameter), the round it is of, and the inner state."""
        return {ROUND: np.array(0, np.int64), **prefixed({_RESIDUAL: zeros(spec), INNER: self.inner.init(spec)})}

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """Of ``tensors`` plus what still counts of the residual. Raises SpecError if that is of another model."""
        residual = self._recall(state, _RESIDUAL, Spec.of(tensors))
        corrected = plus(tensors, self.share(context.round - int(state[ROUND])), residual)
        made = self._sent(self.inner, corrected, part(state, INNER), context, rng)
        kept = prefixed({_RESIDUAL: plus(corrected, -1.0, made.arrived), INNER: made.state})
        return made._replace(state={ROUND: np.array(context.round, np.int64), **kept})

    def share(self, rounds: int) -> float:
        """What still counts of a residual ``rounds`` later (1: none missed)."""
        if self.stale and rounds > self.stale:
            return 0.0
        return faded(self.decay, rounds)
