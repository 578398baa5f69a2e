"""The run's side of the privacy ledger: which round may begin, who may be invited, what a round costs whom.

Central privacy by sampling is paid for by the population as a whole; without it by each client that was in the sum.
Local privacy is paid for on the device, which keeps its own account and declines what would pass it; the ledger has
what devices say of it, so that whoever runs the server sees the whole. An entry is durable before the version that it
pays for is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from fedpress.errors import BudgetSpent
from fedpress.plan import Plan
from fedpress.privacy.central import NONE, Central
from fedpress.privacy.ledger import POPULATION, Ledger, Report, Spend, client
from fedpress.protos import fleet_pb2 as pb


class Purse:
    """Of one run. ``ledger``: None where nothing is paid for; then every round may begin."""

    def __init__(self, plan: Plan, central: Central | None, ledger: Ledger | None, run_id: str) -> None:
        self._central, self._ledger, self._run = central, ledger, run_id
        self._budget = plan.privacy.budget
        self._delta = plan.privacy.delta
        self._wanted = plan.cohort.min_clients or plan.clients.count
        self._able: dict[tuple[str, int], bool] = {}
        self.attempt = 0
        """How often rounds of this run were given up: what was paid for one is not good for the next."""

    def refusal(self, round_: int, names: Collection[str]) -> str:
        """Why a round may not begin, as far as budgets say; "" if it may. ``names``: of all enrolled clients."""
        central, ledger = self._central, self._ledger
        if central is None or ledger is None or not self._budget:
            return ""
        if central.sampling != NONE:
            try:
                ledger.afford(self._run, round_, [self._spend(central, POPULATION, round_)], self._budget)
            except BudgetSpent as error:
                return str(error)
            return ""
        able = sum(self.may(name, round_) for name in names)
        if able >= central.least or len(names) < self._wanted:
            return ""
        return (
            f"{able} of {len(names)} clients have enough left for round {round_} of their privacy budget of epsilon "
            f"{self._budget:g} (privacy.max_epsilon), {central.least} are needed"
        )

    def may(self, name: str, round_: int) -> bool:
        """A client has enough left to be in a round."""
        central, ledger = self._central, self._ledger
        if central is None or ledger is None or not self._budget or central.sampling != NONE:
            return True
        if (name, round_) not in self._able:
            try:
                spend = self._spend(central, client(name), round_)
                dearest = replace(spend, charge=central.dearest)  # in whichever round it lands
                ledger.afford(self._run, round_, [dearest], self._budget)
                self._able[name, round_] = True
            except BudgetSpent:
                self._able[name, round_] = False
        return self._able[name, round_]

    def pay(self, round_: int, updates: Callable[[], Mapping[str, pb.Report]]) -> float:
        """Write down what a round with these clients' ``updates()`` costs, before it is released; the most that one of
        those who paid has spent. To pay for a round again, after a crash in between, changes nothing.

        Raises BudgetSpent, with nothing written, where another run on the same ledger was quicker.
        """
        ledger, central = self._ledger, self._central
        if ledger is None:
            return 0.0
        lines: list[Spend | Report]
        if central is None:
            said = {name: report.epsilon for name, report in updates().items() if report.epsilon > 0}
            lines = [Report(client(name), spent, self._delta) for name, spent in said.items()]
        elif central.sampling == NONE:
            lines = [self._spend(central, client(name), round_) for name in updates()]
        else:
            lines = [self._spend(central, POPULATION, round_)]
        self._able.clear()
        budget = self._budget if central is not None and self._budget else None
        return max((entry.epsilon for entry in ledger.charge(self._run, round_, lines, budget)), default=0.0)

    def _spend(self, central: Central, party: str, round_: int) -> Spend:
        """One party's part in a round."""
        facts = {"clip_norm": central.bound, "expected_cohort": central.divisor}
        if central.adaptive is not None:
            facts = {"clip_quantile": central.adaptive.quantile, "expected_cohort": central.divisor}
        if central.measures(round_):
            facts["metrics_noise"] = central.metrics
        kind = "gaussian" if central.banded is None else f"banded:{central.banded.bands}"
        kind += f", attempt {self.attempt + 1}" if self.attempt else ""
        return Spend(party, central.charge(round_), kind, facts)
