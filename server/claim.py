"""Whose a store is: a run claims an empty one, and knows its own again by its model, its seed and its pledge."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from fedpress.errors import StoreError
from fedpress.params import Spec
from fedpress.plan import Plan
from fedpress.privacy.central import Central, pledge
from fedpress.server.store import Store


def claim(store: Store, spec: Spec, plan: Plan, central: Central | None) -> str:
    """The run's id, new if the store is empty.

    Raises StoreError for the store of another spec or seed, and for a plan that would make untrue what the run's ledger
    says.
    """
    promised = pledge(plan, central)
    with store.transaction():
        known = store.meta("spec")
        if known is None:
            store.set_meta("spec", spec.to_json())
            store.set_meta("run_id", secrets.token_hex(8))
            store.set_meta("seed", str(plan.run.seed))
            store.set_meta("pledge", json.dumps(promised))
        elif Spec.from_json(known) != spec or store.meta("seed") != str(plan.run.seed):
            raise StoreError(
                "The store in this run's directory is of another model or run.seed. Choose another run.name, or "
                "start over with --fresh."
            )
        _keep(json.loads(store.meta("pledge") or "{}"), promised)
        return store.meta("run_id") or ""


def _keep(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    for key in sorted(was.keys() & now.keys(), key=["privacy.mode", *now].index):
        if was[key] != now[key]:
            raise StoreError(
                f"The run began with {key} = {was[key]}, the plan now says {now[key]}: its ledger would not be "
                "true any more. Go on with the plan as it was, or begin another run."
            )
