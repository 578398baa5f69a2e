"""The strategies, one file per published algorithm, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fedpress.errors import PlanError, closest
from fedpress.plan import Plan, StrategySection
from fedpress.server.strategies.fedavg import FedAvg
from fedpress.server.strategies.fedper import FedPer
from fedpress.server.strategies.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy", "build"]

STRATEGIES: Final[Mapping[str, Callable[[StrategySection, float, float], Strategy]]] = {
    FedAvg.id: lambda options, lr, discount: FedAvg(options.weighting, lr, discount),
    FedPer.id: lambda options, lr, discount: FedPer(options.weighting, lr, discount, patterns=options.personal),
}


def build(plan: Plan) -> Strategy:
    """The strategy a plan names. Raises PlanError for an unknown one, or for options that do not go with it."""
    options = plan.strategy
    if options.name not in STRATEGIES:
        raise PlanError(f"Unknown strategy '{options.name}' (strategy.name). {closest(options.name, STRATEGIES)}")
    if options.personal and options.name != FedPer.id:
        raise PlanError(
            f"Expected strategy.personal only with strategy.name = 'fedper', got {list(options.personal)} "
            f"with '{options.name}'."
        )
    return STRATEGIES[options.name](options, plan.server_lr, plan.cohort.discount)
