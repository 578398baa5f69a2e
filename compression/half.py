"""Half precision: IEEE binary16 (``fp16``) and bfloat16 (``bf16``), rounded to nearest, ties to even.

A magnitude beyond the largest finite number becomes that number, not infinity: 65504 in fp16, 3.39e38 in bf16.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors, flatten, unflatten


@dataclass(frozen=True)
class _Half(Stage):
    """Two bytes per parameter, little-endian."""

    #: Largest relative rounding error of a normal number, largest absolute one of a smaller number, largest number.
    _relative: ClassVar[float]
    _absolute: ClassVar[float]
    _largest: ClassVar[float]
    unbiased: ClassVar[bool] = False  #: rounding is deterministic
    keeps: ClassVar[float] = 0.0  #: rounding errs by no more than the number, and makes small ones zero

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """2 bytes per parameter."""
        return Wire(self._narrow(flatten(tensors)).tobytes(), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Exact widening to float32. Raises DecodeError on another length."""
        if len(wire.side) != self.max_bytes(spec):
            raise DecodeError(f"Expected {self.max_bytes(spec)} bytes of '{self.id}', got {len(wire.side)}.")
        return unflatten(self._widen(np.frombuffer(wire.side, "<u2")), spec), state

    def error_bound(self, tensors: Tensors) -> float:
        """Half a unit in the last place of each number, and what saturation cuts off."""
        magnitude = np.abs(flatten(tensors).astype(np.float64))
        rounding = np.maximum(self._relative * magnitude, self._absolute)
        return float(np.sum(np.square(rounding + np.maximum(magnitude - self._largest, 0))))

    def max_bytes(self, spec: Spec) -> int:
        """Exactly 2 bytes per parameter."""
        return 2 * spec.size

    @abstractmethod
    def _narrow(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        """float32[n] to 16-bit numbers [n]."""

    @abstractmethod
    def _widen(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """uint16[n] patterns to float32[n]."""


@dataclass(frozen=True)
class Fp16(_Half):
    """IEEE binary16: 11 significant bits, magnitudes to 65504."""

    id: ClassVar[str] = "fp16"
    _relative: ClassVar[float] = 2.0**-11
    _absolute: ClassVar[float] = 2.0**-25
    _largest: ClassVar[float] = 65504.0

    def _narrow(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(np.clip(vector, -self._largest, self._largest), "<f2")

    def _widen(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        return codes.view("<f2").astype(np.float32)


@dataclass(frozen=True)
class Bf16(_Half):
    """bfloat16: 8 significant bits, the range of float32."""

    id: ClassVar[str] = "bf16"
    _relative: ClassVar[float] = 2.0**-8
    _absolute: ClassVar[float] = 2.0**-134
    _largest: ClassVar[float] = 2.0**128 - 2.0**120

    def _narrow(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        pattern = np.clip(vector, -self._largest, self._largest).view("<u4")
        pattern = pattern + (np.uint32(0x7FFF) + ((pattern >> np.uint32(16)) & np.uint32(1)))
        return np.asarray(pattern >> np.uint32(16), "<u2")

    def _widen(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        wide: NDArray[np.float32] = (codes.astype("<u4") << np.uint32(16)).view("<f4")
        return wide
