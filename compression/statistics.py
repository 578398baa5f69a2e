"""Running statistics as they travel: each number to its own precision, however small it is beside others.

The variances of raw inputs lie orders of magnitude apart in one tensor, where one step for all would never reach the
small ones, and an error of a step would make some negative. So whoever makes a statistic, device or server, rounds it
to 8 bits of mantissa (a bfloat16), and differences of such numbers travel without loss: they are short, nothing adds
up, and a statistic that cannot be negative never is.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fedpress.compression.codec import Codec
from fedpress.params import Array, Spec, Tensors

#: Larger magnitudes are cut off here, so that rounding up gives no infinity.
_LARGEST: Final = np.float32(2.0**127)


def rounded(tensors: Tensors, spec: Spec, codec: Codec) -> Tensors:
    """``tensors`` of ``spec``, its statistics as they travel beside weights that ``codec`` codes: untouched where that
    is exact."""
    statistics = set(spec.named("statistic")) if codec.keeps < 1.0 else ()
    return {name: to_bfloat16(array) if name in statistics else array for name, array in tensors.items()}


def to_bfloat16(array: Array) -> Array:
    """float32, the nearest numbers with 8 bits of mantissa, ties to even; no zero is negative."""
    pattern = np.clip(array, -_LARGEST, _LARGEST).astype(np.float32).view(np.uint32)
    odd = pattern >> np.uint32(16) & np.uint32(1)
    cut = pattern + np.uint32(0x7FFF) + odd & np.uint32(0xFFFF0000)
    found: Array = cut.view(np.float32) + np.float32(0)
    return found
