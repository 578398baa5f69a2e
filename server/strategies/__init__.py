"""The strategies, one file per published algorithm, and the table of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fedpress.errors import PlanError, closest
from fedpress.plan import Plan, explain
from fedpress.server.strategies import compatibility
from fedpress.server.strategies.apfl import Apfl
from fedpress.server.strategies.ditto import Ditto
from fedpress.server.strategies.fedala import FedAla
from fedpress.server.strategies.fedasync import FedAsync
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.fedavgm import FedAvgM
from fedpress.server.strategies.fedbabu import FedBABU
from fedpress.server.strategies.fedbn import FedBN
from fedpress.server.strategies.fedbuff import FedBuff
from fedpress.server.strategies.feddyn import FedDyn
from fedpress.server.strategies.fednova import FedNova
from fedpress.server.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from fedpress.server.strategies.fedper import FedPer
from fedpress.server.strategies.fedprox import FedProx
from fedpress.server.strategies.fedrep import FedRep
from fedpress.server.strategies.finetune import FineTune
from fedpress.server.strategies.ifca import Ifca
from fedpress.server.strategies.lg_fedavg import LgFedAvg
from fedpress.server.strategies.local import Local
from fedpress.server.strategies.moon import Moon
from fedpress.server.strategies.per_fedavg import PerFedAvg
from fedpress.server.strategies.pfedme import PFedMe
from fedpress.server.strategies.scaffold import Scaffold
from fedpress.server.strategies.strategy import Aggregate, Arrival, Share, Strategy

__all__ = ["STRATEGIES", "Aggregate", "Arrival", "Share", "Strategy", "build", "describe", "options"]

STRATEGIES: Final[Mapping[str, Any]] = {
    kind.id: kind
    for kind in (
        FedAvg,
        FedProx,
        Scaffold,
        FedNova,
        FedDyn,
        Moon,
        FedAvgM,
        FedAdagrad,
        FedAdam,
        FedYogi,
        FedPer,
        FedRep,
        LgFedAvg,
        FedBN,
        FedBABU,
        FineTune,
        Local,
        Ditto,
        PFedMe,
        Apfl,
        PerFedAvg,
        FedAla,
        Ifca,
        FedAsync,
        FedBuff,
    )
}
#: Fields that come from elsewhere in the plan.
_GIVEN: Final = {"weighting", "lr", "discount"}


def options(name: str) -> tuple[dataclasses.Field[Any], ...]:
    """The options of a strategy in the plan's section ``strategy``, beside those that all have."""
    return tuple(f for f in dataclasses.fields(STRATEGIES[name]) if f.name not in _GIVEN)


class Description(NamedTuple):
    """A strategy, for people."""

    id: str
    citation: str
    about: str
    options: tuple[str, ...]
    needs: tuple[str, ...]


def describe() -> list[Description]:
    """All strategies, in the table's order."""
    return [
        Description(
            name,
            kind.citation,
            (sys.modules[kind.__module__].__doc__ or "").split("\n\n")[0].replace("\n", " "),
            tuple(_option(field, kind) for field in options(name)),
            tuple(compatibility.NEEDS[need][0] for need in sorted(kind.needs)),
        )
        for name, kind in STRATEGIES.items()
    ]


def _option(field: dataclasses.Field[Any], kind: Any) -> str:
    """``name=default: what it is``."""
    hint = get_type_hints(kind, include_extras=True)[field.name]
    said = next((m.description for m in getattr(hint, "__metadata__", ()) if getattr(m, "description", None)), "")
    return f"{field.name}={field.default}" + f": {said}" * bool(said)


def build(plan: Plan) -> Strategy:
    """The strategy a plan names. Raises PlanError for an unknown one, for options that it does not have, and for a plan
    that it does not go with."""
    section = plan.strategy
    if section.name not in STRATEGIES:
        raise PlanError(f"Unknown strategy '{section.name}' (strategy.name). {closest(section.name, STRATEGIES)}")
    kind = STRATEGIES[section.name]
    known = [field.name for field in options(section.name)]
    for key in section.options:
        if key not in known:
            having = sorted(n for n in STRATEGIES if key in {f.name for f in options(n)})
            whose = f" It belongs to {', '.join(having)}." if having else f" {closest(key, known)}" if known else ""
            raise PlanError(f"The strategy '{section.name}' has no option '{key}' (strategy.{key}).{whose}")
    compatibility.check(section.name, kind.needs, plan)
    given = {
        "weighting": section.weighting,
        "lr": section.lr or kind.server_lr,
        "discount": plan.cohort.discount,
        **section.options,
    }
    try:
        strategy: Strategy = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise PlanError(
            "\n".join(explain({**fault, "loc": ("strategy", *fault["loc"])}) for fault in error.errors())
        ) from error
    return strategy
