"""TernGrad: every number becomes -1, 0 or 1 times its tensor's largest magnitude, at random such that the mean is the
number (Wen et al. 2017, "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning").

With ``clip`` above 0, magnitudes are first cut off at ``clip`` times their tensor's root mean square (the paper's
gradient clipping, which it does at 2.5): far smaller errors for heavy tails, at the price of a bias.

Deviations from the paper: root mean square, where it takes the standard deviation (the mean of an update is nearly
zero); the integers go through the entropy stage; scales are bfloat16, rounded up, and not shared between clients.
Payload: the scales, one per tensor that is not empty, then the integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy, scales
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.native import kernels
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, flatten, unflatten

_LARGEST: Final = 2.0**127


@dataclass(frozen=True)
class TernGrad(Stage):
    """Random signs and zeros times the largest magnitude, or ``clip`` times the root mean square, of each tensor."""

    clip: float = 0.0
    id: ClassVar[str] = "terngrad"
    #: zeros that should have been small numbers, and the few that are far too large, err by more
    keeps: ClassVar[float] = -1.0

    def __post_init__(self) -> None:
        if not 0 <= self.clip <= 2**16:
            raise CodecError(f"Expected clip from 0 (none) to 65536, got {self.clip} (terngrad.clip).")

    @property
    def unbiased(self) -> bool:
        """Unless large numbers are cut off."""
        return self.clip == 0

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Scales, then integers."""
        x, spec = flatten(tensors), Spec.of(tensors)
        tops, lengths = self._tops(x, spec)
        share = np.abs(x) / np.repeat(np.where(tops == 0, np.float32(np.inf), tops), lengths)
        levels = np.sign(x) * (rng.uniform(x.size) < share)
        return Wire(scales.to_bytes(tops) + entropy.encode(levels.astype(np.int16), spec, 1), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Integers times scales. Raises DecodeError."""
        at, lengths = scales.blocks(spec, max(1, spec.size))
        tops = scales.from_bytes(wire.side, at.size, _LARGEST)
        x = entropy.decode(wire.side[scales.WIDTH * at.size :], spec, 1).astype(np.float32)
        x *= np.repeat(tops, lengths)
        return unflatten(x, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean: a quarter of the squared scale, or the scale times the number; and what is cut off, which is
        less than all there is."""
        x = flatten(tensors)
        tops, lengths = self._tops(x, Spec.of(tensors))
        top, size = np.repeat(tops.astype(np.float64), lengths), np.abs(x).astype(np.float64)
        cut = size > (top if self.clip == 0 else 0)
        return float(np.sum(np.minimum(top**2 / 4, top * size) * (1 + 1e-5) + np.where(cut, size**2, 0)))

    def max_bytes(self, spec: Spec) -> int:
        """2 bytes per tensor, and integers as they are."""
        return scales.WIDTH * sum(t.size > 0 for t in spec) + entropy.max_bytes(spec, 1)

    def _tops(self, x: NDArray[np.float32], spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Each tensor's scale, and how many numbers it has; of those that have any."""
        at, lengths = scales.blocks(spec, max(1, spec.size))
        tops = np.maximum.reduceat(np.abs(x), at).astype(np.float64) if at.size else np.zeros(0)
        if self.clip:
            squares = [kernels.sum_squares(x[a : a + n]) for a, n in zip(at.tolist(), lengths.tolist(), strict=True)]
            tops = np.minimum(tops, self.clip * np.sqrt(np.array(squares, np.float64) / lengths))
        return scales.rounded_up(tops, _LARGEST), lengths
