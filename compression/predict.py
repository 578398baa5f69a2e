"""Prediction: what the newest download suggests is taken off before the rest is coded.

The step that the server sent last is what all clients together did; a client's next update looks like it in part. Both
ends hold it, so it costs nothing to subtract a share of it and to add it back (predictive coding as in speech and
video; for federated updates see Yue et al. 2022, "Predictive Coding for Communication-Efficient Federated Learning").
A device that does not know the step (its model came whole) sends unpredicted, and says so in one byte. So does one
whose update would grow by it: what is left to code is never more than there was.

The share is fixed. That of least squares leaves less when the learning rate falls from round to round, yet accuracy and
bits were worse with it: half of the last step, whatever the update says, also keeps the fleet moving, like momentum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from fedpress.compression.codec import Context, State, Wire, energy
from fedpress.compression.plus import plus
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Spec, Tensors

_UNPREDICTED: Final = b"\0"


@dataclass(frozen=True)
class Predict(Stage):
    """Takes the share ``scale`` of the newest download's step off the update, and leaves the rest."""

    scale: float = 0.5
    needs_model: ClassVar[bool] = True
    id: ClassVar[str] = "predict"
    unbiased: ClassVar[bool] = True  #: what is taken off is added back
    keeps: ClassVar[float] = 1.0  #: it loses nothing, and leaves no more than there was

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise CodecError(f"Expected 0 < scale <= 1, got {self.scale} (predict.scale).")

    def rest(self, spec: Spec) -> Spec:
        """As many tensors as came."""
        return spec

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: nothing, or one zero byte where the step is not known, or of no use."""
        if context.step is not None:
            rest = plus(tensors, -self.scale, context.step)
            if energy(rest) <= energy(tensors):
                return Wire(b"", rest), state
        return Wire(_UNPREDICTED, tensors), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Raises DecodeError for another side, or a prediction from a step that this end does not have."""
        if wire.side == _UNPREDICTED:
            return wire.rest, state
        if len(wire.side):
            raise DecodeError(f"Expected no byte or a zero from 'predict', got {len(wire.side)} bytes.")
        if context.step is None:
            raise DecodeError("Expected an unpredicted update: there is no step to predict from.")
        return plus(wire.rest, self.scale, context.step), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """Without a step, what came."""
        return tensors

    def error_bound(self, tensors: Tensors) -> float:
        """Rounding only."""
        return 1e-12 * float(sum(np.sum(np.square(a, dtype=np.float64)) for a in tensors.values()))

    def max_bytes(self, spec: Spec) -> int:  # noqa: ARG002
        """One byte at most."""
        return 1
