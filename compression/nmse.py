"""A dead-zone quantiser that is told what it may lose: its step is the coarsest that loses at most the share ``lost``
of the energy (the normalised mean squared error), found from the update's own values.

One number means the same on every model: 0.3 keeps 70 % of the energy of whatever is sent, be it long-tailed, Gaussian
or of one size, of 28 parameters or of a million. See ``compression.deadzone`` for the format, which is that of
``ecsq``, and ``compression.steps`` for the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import entropy
from fedpress.compression.deadzone import DeadZone
from fedpress.compression.steps import Energy
from fedpress.errors import CodecError


@dataclass(frozen=True)
class Nmse(DeadZone):
    """At most the share ``lost`` of the energy is lost: dead zone, entropy coding; ``ladder``: as in ecsq."""

    lost: float = 0.4
    ladder: bool = False
    model: entropy.Model = "auto"
    id: ClassVar[str] = "nmse"

    def __post_init__(self) -> None:
        if not 1e-6 <= self.lost <= 0.95:
            raise CodecError(f"Expected a share from 0.000001 to 0.95, got {self.lost} (nmse.lost).")

    @property
    def most_lost(self) -> float:
        """``lost``."""
        return self.lost

    def wanted(self, x: NDArray[np.float32], energy: Energy) -> float:  # noqa: ARG002
        """Beyond the largest magnitude all is lost: the search begins there."""
        largest = float(energy.sizes.max(initial=0))
        return energy.coarsest(self.lost, min(2 * largest, 2.0**112)) if largest else 0.0
