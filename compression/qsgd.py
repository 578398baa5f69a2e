"""QSGD: random rounding to ``levels`` steps of a bucket's norm (Alistarh et al. 2017, "QSGD: Communication-Efficient
SGD via Gradient Quantization and Encoding").

A number x of a bucket with norm N becomes the integer below or above ``x * levels / N``, at random such that the mean
is x. A squared error of at most ``min(bucket / levels**2, sqrt(bucket) / levels)`` times the squared norm, in the mean
(the paper's Lemma 3.1).

Deviations from the paper: the integers go through the entropy stage, which beats Elias coding; buckets end with their
tensor; norms are bfloat16, rounded up, which keeps it unbiased. Payload: the steps N / levels, one per bucket, then the
integers.
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

_MOST_LEVELS: Final = 32767
_LARGEST: Final = 2.0**112


@dataclass(frozen=True)
class QSGD(Stage):
    """Unbiased rounding to ``levels`` steps of the norm of each ``bucket`` of numbers, entropy coding."""

    levels: int = 16
    bucket: int = 512
    id: ClassVar[str] = "qsgd"
    unbiased: ClassVar[bool] = True  #: rounding goes up as often as it must

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= _MOST_LEVELS:
            raise CodecError(f"Expected levels from 1 to {_MOST_LEVELS}, got {self.levels} (qsgd.levels).")
        if self.bucket < 1:
            raise CodecError(f"Expected a bucket of 1 or more numbers, got {self.bucket} (qsgd.bucket).")

    @property
    def block_size(self) -> int:
        """``bucket``."""
        return self.bucket

    @property
    def keeps(self) -> float:
        """A quarter of a squared step per number is lost at most, with a step rounded up."""
        kept = 1 - self.bucket * (1 + 1 / 128) ** 2 / (4 * self.levels**2)
        return kept if kept >= 0 else -1.0

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Steps, then integers."""
        x, spec = flatten(tensors), Spec.of(tensors)
        steps, lengths = self._steps(x, spec)
        ratio = x / np.repeat(np.where(steps == 0, np.float32(np.inf), steps), lengths)
        down = np.floor(ratio)
        levels = np.clip(down + (rng.uniform(x.size) < ratio - down), -self.levels, self.levels).astype(np.int16)
        return Wire(scales.to_bytes(steps) + entropy.encode(levels, spec, self.levels), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Integers times steps. Raises DecodeError."""
        at, lengths = scales.blocks(spec, self.bucket)
        steps = scales.from_bytes(wire.side, at.size, _LARGEST)
        x = entropy.decode(wire.side[scales.WIDTH * at.size :], spec, self.levels).astype(np.float32)
        x *= np.repeat(steps, lengths)
        return unflatten(x, spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean: a quarter of a squared step, or a step times the number; and what the largest level is off."""
        x = flatten(tensors)
        steps, lengths = self._steps(x, Spec.of(tensors))
        step, size = np.repeat(steps.astype(np.float64), lengths), np.abs(x).astype(np.float64)
        moved = np.where(step == 0, size**2, np.minimum(step**2 / 4, step * size))
        return float(np.sum(moved * (1 + 1e-5) + np.square(np.maximum(size - self.levels * step, 0))))

    def max_bytes(self, spec: Spec) -> int:
        """2 bytes per bucket, and levels as they are."""
        return scales.WIDTH * scales.blocks(spec, self.bucket)[0].size + entropy.max_bytes(spec, self.levels)

    def _steps(self, x: NDArray[np.float32], spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Each bucket's step, and how many numbers it has."""
        at, lengths = scales.blocks(spec, self.bucket)
        squares = [kernels.sum_squares(x[a : a + n]) for a, n in zip(at.tolist(), lengths.tolist(), strict=True)]
        return scales.rounded_up(np.sqrt(np.array(squares, np.float64)) / self.levels, _LARGEST), lengths
