"""A dead-zone quantiser whose step is a multiple of the update's root mean square: coarse where few numbers are large,
fine where all are alike. See ``compression.deadzone`` for the format.

What a rate means depends on the numbers: 3 loses half of the energy of a long-tailed update, and all of one whose
numbers are of one size. That is why the step is made finer where more than ``_MOST_LOST`` would go. ``nmse`` asks for
the loss instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy
from fedpress.compression.deadzone import DeadZone
from fedpress.compression.native import kernels
from fedpress.compression.steps import Energy
from fedpress.errors import CodecError

_MOST_LOST: Final = 0.95


@dataclass(frozen=True)
class Ecsq(DeadZone):
    """Step = ``rate`` times the root mean square, dead zone, entropy coding; ``ladder``: steps are powers of two."""

    rate: float = 3.0
    ladder: bool = False
    model: entropy.Model = "auto"
    id: ClassVar[str] = "ecsq"
    most_lost: ClassVar[float] = _MOST_LOST

    def __post_init__(self) -> None:
        if not 2**-8 <= self.rate <= 2**8:
            raise CodecError(f"Expected a rate from 1/256 to 256, got {self.rate} (ecsq.rate).")

    def wanted(self, x: NDArray[np.float32], energy: Energy) -> float:  # noqa: ARG002
        """``rate`` times the root mean square."""
        return self.rate * math.sqrt(kernels.sum_squares(x) / x.size) if x.size else 0.0
