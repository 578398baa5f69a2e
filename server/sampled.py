"""Rounds by cohorts that are drawn once: privacy that is amplified by sampling holds for one draw alone.

The cohort is drawn from all that are willing, and nobody takes the place of one that fails (McMahan et al. 2018,
"Learning Differentially Private Recurrent Language Models"; Balle, Barthe and Gaboardi 2018, "Privacy Amplification by
Subsampling"). ``rules.cohort`` maps the number of willing clients, of which there must be ``rules.pool``. A Poisson
cohort may be empty, and the round is a round like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpress.server.cohorts import Cohorts
from fedpress.server.leases import Action


@dataclass
class Sampled(Cohorts):
    """See the module's docstring."""

    def _target(self, willing: int, there: int) -> int:  # noqa: ARG002 - of the willing, whoever else is there
        target = self.rules.cohort(willing)
        return target if target >= max(1, self.rules.min_updates) and willing >= self.rules.pool else 0

    def _launch(self, now: float) -> list[Action]:
        invited = self._invite(now, self.target)
        self.target = len(self._own())  # of Poisson cohorts only known now
        return invited or self._close()

    def _fill(self, now: float) -> list[Action]:  # noqa: ARG002
        return []

    def _replace(self, now: float) -> list[Action]:  # noqa: ARG002
        return []

    def _prolong(self, now: float) -> list[Action]:
        """Who was drawn stays drawn, and is asked once more."""
        self.deadline = now + self.rules.deadline_s
        missing = {lease.client for lease in self._own()} - self._in() - set(self.at_work())
        return self._lease([client for client in self._willing(now) if client in missing], now)
