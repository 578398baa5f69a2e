"""Running statistics as they travel: each number to its own precision, however small it is beside others.

The variances of raw inputs lie orders of magnitude apart in one tensor, where one step for all would never reach the
small ones, and an error of a step would make some negative. A mean may be large beside its deviation, as of a column of
years: 8 bits of the mean itself would be coarser than all that the layer looks at. So whoever makes a statistic, device
or server, keeps 8 bits of mantissa of its change, or of itself where that is the smaller one, and no more is lost: what
one change leaves out the next one has, errors fade with the changes, and a statistic that cannot be negative never is.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fedpress.compression.codec import Codec
from fedpress.params import Array, Spec, Tensors, subtract

#: Larger magnitudes are cut off here, so that rounding up gives no infinity.
_LARGEST: Final = np.float32(2.0**127)


def change(new: Tensors, base: Tensors, spec: Spec, codec: Codec) -> dict[str, Array]:
    """``new - base``, of tensors of ``spec``; of statistics as they travel beside weights that ``codec`` codes: whole
    where that is exact."""
    found = subtract(new, base)
    for name in spec.named("statistic") if codec.keeps < 1.0 else ():
        whole, itself = found[name], np.subtract(to_bfloat16(new[name]), base[name])
        found[name] = np.where(np.abs(whole) <= np.abs(new[name]), to_bfloat16(whole), itself)
    return found


def to_bfloat16(array: Array) -> Array:
    """float32, the nearest numbers with 8 bits of mantissa, ties to even; no zero is negative."""
    pattern = np.clip(array, -_LARGEST, _LARGEST).astype(np.float32).view(np.uint32)
    odd = pattern >> np.uint32(16) & np.uint32(1)
    cut = pattern + np.uint32(0x7FFF) + odd & np.uint32(0xFFFF0000)
    found: Array = cut.view(np.float32) + np.float32(0)
    return found
