"""Raw: float32, little-endian, tensor after tensor. The last stage where no other finishes, and the yardstick for
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import Spec, Tensors, unflatten


@dataclass(frozen=True)
class Raw(Stage):
    """Uncompressed float32. Decoding copies nothing: the tensors are views of the payload."""

    id: ClassVar[str] = "raw"
    commutes_with_sum: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True  #: exact
    keeps: ClassVar[float] = 1.0  #: nothing is lost

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """4 bytes per parameter."""
        return Wire(b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in tensors.values()), {}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Views of ``wire.side``. Raises DecodeError on another length."""
        if len(wire.side) != spec.nbytes:
            raise DecodeError(f"Expected {spec.nbytes} bytes of float32, got {len(wire.side)}.")
        return unflatten(np.frombuffer(wire.side, "<f4"), spec), state

    def error_bound(self, tensors: Tensors) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def max_bytes(self, spec: Spec) -> int:
        """Exactly 4 bytes per parameter."""
        return spec.nbytes
