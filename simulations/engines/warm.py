"""What client processes have in common, loaded once in the fork server that they are forked from: torch, and the data.

Importing this module loads the plan that ``$FEDPRESS_WARM`` names, if any. Forked clients share those pages; a client
of another plan loads its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fedpress import plan as plans
from fedpress.plan import Plan
from fedpress.simulations import join  # noqa: F401 - imported to be shared
from fedpress.simulations.problem import Problem

WARM: Final = "FEDPRESS_WARM"


def _load() -> Problem | None:
    path = os.environ.get(WARM)
    if path is None:
        return None
    problem = Problem(plans.load(Path(path)))
    if problem.plan.train.trainer == "torch":
        import torch._dynamo  # noqa: F401 - the first optimiser step would import it, in every client

        import fedpress.client.trainers.torch_trainer  # noqa: F401
    _ = problem.clients
    return problem


_PROBLEM: Final = _load()


def problem_of(plan: Plan) -> Problem:
    """The problem of ``plan``: the one loaded here, if it has the same data and clients."""
    if _PROBLEM is not None and plans.to_toml(_PROBLEM.plan) == plans.to_toml(plan):
        return _PROBLEM
    return Problem(plan)
