"""Who is invited to a round: one file per rule, and the table of them. What a rule may look at: ``candidate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, get_args

from fedpress.plan import Cohort, Plan
from fedpress.server.selection.candidate import REQUIREMENTS, Select
from fedpress.server.selection.deadline_aware import deadline_aware
from fedpress.server.selection.round_robin import round_robin
from fedpress.server.selection.uniform import uniform
from fedpress.server.selection.weighted import weighted

SELECTIONS: Final[Mapping[str, Callable[[Plan], Select]]] = {
    "uniform": lambda plan: uniform(plan.run.seed),
    "weighted": lambda plan: weighted(plan.run.seed),
    "round-robin": lambda plan: round_robin(plan.run.seed),
    "deadline-aware": lambda plan: deadline_aware(plan.run.seed, plan.cohort.deadline_s),
}
_FIELDS: Final = Cohort.model_fields
if set(SELECTIONS) != set(get_args(_FIELDS["selection"].annotation)):
    raise RuntimeError("The selections here and those of the plan differ.")
if set(REQUIREMENTS) != set(get_args(get_args(_FIELDS["require"].annotation)[0])):
    raise RuntimeError("The requirements here and those of the plan differ.")
