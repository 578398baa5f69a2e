"""What quantisers say of their data: positive scales as bfloat16, which has the range of float32 in two bytes.

Scales are rounded up, by 1/128 at most, so that no number is larger than its scale times the largest level. Those too
small to matter count as zero; none is so large that its product with a level could overflow.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Bytes
from fedpress.errors import DecodeError
from fedpress.params import Spec

#: Scales below this are zero.
SMALLEST: Final = 2.0**-100
#: Bytes that a scale takes, and those of a scale of zero.
WIDTH: Final = 2
ZERO: Final = b"\0\0"


def rounded_up(numbers: Any, most: float) -> NDArray[np.float32]:
    """The smallest scales that are no less than ``numbers`` (float64[m] or one), or ``most``, a power of two."""
    mantissa, exponent = np.frexp(np.minimum(np.atleast_1d(np.asarray(numbers, np.float64)), most))
    scales = np.ldexp(np.ceil(mantissa * 256), exponent - 8)
    return np.where(scales < SMALLEST, 0, scales).astype(np.float32)


def to_bytes(scales: NDArray[np.float32]) -> bytes:
    """Scales that ``rounded_up`` gave, little-endian."""
    return (scales.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def from_bytes(data: Bytes, count: int, most: float) -> NDArray[np.float32]:
    """float32[count] from the beginning of ``data``. Raises DecodeError for what ``rounded_up`` does not give."""
    if len(data) < WIDTH * count:
        raise DecodeError(f"Expected {WIDTH * count} bytes of scales, got {len(data)}.")
    scales = (np.frombuffer(data[: WIDTH * count], "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if not np.all((scales == 0) & ~np.signbit(scales) | (scales >= SMALLEST) & (scales <= most)):
        raise DecodeError("Expected finite, non-negative scales of sensible size.")
    return scales


def blocks(spec: Spec, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every tensor cut into blocks of ``size`` numbers, its last one of what is left: where each starts, how long."""
    ends = np.cumsum([0, *(t.size for t in spec)])
    starts = [np.arange(at, end, size, dtype=np.int64) for at, end in pairwise(ends)]
    at = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    return at, np.diff(at, append=spec.size)
