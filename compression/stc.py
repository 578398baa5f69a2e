"""Sparse ternary compression: the largest magnitudes travel as signs, and one magnitude serves them all (Sattler et al.
2019, "Robust and Communication-Efficient Federated Learning from Non-IID Data").

The magnitude is the mean of those chosen, which leaves the least squared error. Biased: meant to stand behind ``ef``.
Behind ``predict`` it lost 11 to 14 points of accuracy: leave that to ``ecsq``.

Deviations from the paper: uploads only; signs and places go through the entropy stage, which takes 3 to 30 % fewer
bytes than Golomb-coded gaps on real updates of 50 to 100 thousand parameters, since large numbers stand in rows and
columns together. Payload: the magnitude (a bfloat16, rounded up; 0: nothing but zeros, and nothing follows), the signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from fedpress.compression import entropy, scales
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import Sparse, largest, squared_norm
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten

_NO_SPEC: Final = Spec(())
_LARGEST: Final = 2.0**127
#: Bits of the largest magnitude that count for the mean.
_BITS: Final = 30


@dataclass(frozen=True)
class STC(Sparse):
    """The share ``density`` of largest magnitudes over the whole update, all as their mean with a sign."""

    id: ClassVar[str] = "stc"
    unbiased: ClassVar[bool] = False  #: small parameters never arrive
    keeps: ClassVar[float] = 0.0  #: a mean errs by less than zeros in its place

    def rest(self, spec: Spec) -> Spec:  # noqa: ARG002
        """Nothing is left for another codec."""
        return _NO_SPEC

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Magnitude, then -1, 0 or 1 for every parameter."""
        x, spec = flatten(tensors), Spec.of(tensors)
        indices = largest(x, self.kept(x.size))
        size = np.abs(x[indices], dtype=np.float64)
        unit = math.ldexp(1.0, math.frexp(float(size.max(initial=0)))[1] - _BITS)
        # A sum of integers, which has no order.
        total = int(np.rint(size / unit).astype(np.int64).sum())
        mean = scales.rounded_up(total / max(1, int(np.count_nonzero(size))) * unit, _LARGEST)
        if not mean[0]:
            return Wire(scales.ZERO, {}), state
        signs = np.zeros(x.size, np.int16)
        signs[indices] = np.sign(x[indices])
        return Wire(scales.to_bytes(mean) + entropy.encode(signs, spec, 1), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Raises DecodeError."""
        if wire.side == scales.ZERO:
            return unflatten(np.zeros(spec.size, np.float32), spec), state
        mean = scales.from_bytes(wire.side, 1, _LARGEST)
        if not mean[0]:
            raise DecodeError("Expected nothing after a magnitude of zero.")
        return unflatten(entropy.decode(wire.side[scales.WIDTH :], spec, 1) * mean, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """The squared norm: of one large number among many that are nearly so, little is left."""
        return squared_norm(tensors)

    def max_bytes(self, spec: Spec) -> int:
        """Magnitude, and signs as they are."""
        return scales.WIDTH + entropy.max_bytes(spec, 1)
