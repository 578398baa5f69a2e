"""How long a device's work takes: measured on a real device, computed in a simulation of one.

What a device tells the server of its speed comes from here, and nowhere else from a clock: so a simulation in virtual
time tells the virtual truth, the same each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Pace(Protocol):
    """See the module's docstring."""

    def now(self) -> float:
        """Seconds on the device's own monotonic clock."""

    def took(self, began: float, *, steps: int = 0, evaluated: int = 0, encoded: int = 0) -> float:
        """Seconds that the work took which ``began`` then and is done now.

        ``steps``: of training. ``evaluated``: examples. ``encoded``: parameters. Computed time passes here.
        """


class Measured:
    """As a clock says, whatever the work was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock

    def took(self, began: float, *, steps: int = 0, evaluated: int = 0, encoded: int = 0) -> float:  # noqa: ARG002
        """The time that passed."""
        return self.now() - began
