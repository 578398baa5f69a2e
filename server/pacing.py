"""How a plan paces its rounds: by which of the three coordinators, and by what rules."""

from __future__ import annotations

import math
import secrets

from fedpress.plan import Plan
from fedpress.privacy.central import NONE, POISSON, Central, pool
from fedpress.privacy.noise import Noise
from fedpress.server.buffered import Buffered
from fedpress.server.cohorts import Cohorts
from fedpress.server.coordinator import Coordinator, Here, Known, May
from fedpress.server.leases import Rules
from fedpress.server.sampled import Sampled
from fedpress.server.selection import SELECTIONS


def paced(plan: Plan, central: Central | None, noise: Noise, known: Known, may: May, here: Here | None) -> Coordinator:
    """The plan's coordinator. ``noise`` is where secret draws come from; see ``Coordinator`` for the others."""
    sampled = central is not None and central.sampling != NONE
    poisson = central is not None and central.sampling == POISSON
    few = max(plan.cohort.min_updates, plan.privacy.min_cohort)

    def share(willing: int) -> int:
        """Rounded down, so that nobody is drawn more often than was promised; of Poisson only the mean."""
        return max(few if poisson else 0, math.floor(plan.cohort.fraction * willing))

    rules = Rules(
        rounds=plan.run.rounds,
        cohort=share if sampled else plan.cohort_size,
        select=SELECTIONS[plan.cohort.selection](plan, noise),
        require=plan.cohort.require,
        min_clients=plan.cohort.min_clients or plan.clients.count,
        min_updates=few if few > 1 or not sampled else 0,  # with noise, nobody's update is a round like any other
        over_select=plan.cohort.over_select,
        deadline_s=plan.cohort.deadline_s,
        presence_s=30.0 + 3 * plan.server.long_poll_s,
        final_evaluation=plan.evaluate.clients_every > 0 and central is None,
        max_staleness=plan.cohort.patience,
        buffer=plan.cohort.buffer,
        concurrency=plan.concurrency,
        pool=pool(plan) if poisson else 1,
        once=central is not None or few > 1,
    )
    pacing = Buffered if plan.cohort.buffer else Sampled if sampled else Cohorts
    return pacing(rules, lambda: secrets.token_hex(8), known, here, may)
