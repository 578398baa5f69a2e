"""Who is invited to a round: one file per rule, and the table of them. What a rule may look at: ``candidate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, get_args

from fedpress.plan import Plan
from fedpress.privacy.central import least
from fedpress.privacy.noise import Noise
from fedpress.sections import Cohort
from fedpress.server.selection.candidate import REQUIREMENTS, Select
from fedpress.server.selection.deadline_aware import deadline_aware
from fedpress.server.selection.round_robin import round_robin
from fedpress.server.selection.sampled import fixed, poisson
from fedpress.server.selection.uniform import uniform
from fedpress.server.selection.weighted import weighted

#: From a plan, and a source that nobody can foresee, for draws that privacy rests on.
SELECTIONS: Final[Mapping[str, Callable[[Plan, Noise], Select]]] = {
    "uniform": lambda plan, noise: fixed(noise) if plan.privacy.mode == "central" else uniform(plan.run.seed),
    "poisson": lambda plan, noise: poisson(plan.cohort.fraction, least(plan), noise),
    "weighted": lambda plan, _: weighted(plan.run.seed),
    "round-robin": lambda plan, _: round_robin(plan.run.seed),
    "deadline-aware": lambda plan, _: deadline_aware(plan.run.seed, plan.cohort.deadline_s),
}
_FIELDS: Final = Cohort.model_fields
if set(SELECTIONS) != set(get_args(_FIELDS["selection"].annotation)):
    raise RuntimeError("The selections here and those of the plan differ.")
if set(REQUIREMENTS) != set(get_args(get_args(_FIELDS["require"].annotation)[0])):
    raise RuntimeError("The requirements here and those of the plan differ.")
