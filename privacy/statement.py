"""What a ledger comes to: who has spent what, by both accountants, and what more rounds like the last would cost.

Clients are stated together, never by name: the one that spent most, for which the promise is weakest, and the median.
What the population was charged, each client was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fedpress.privacy.accountants import Charges, epsilon, extended, merged
from fedpress.privacy.entries import GENESIS, POPULATION, Entry, Head
from fedpress.privacy.ledger import Ledger

#: More rounds than this are not counted.
MANY: Final = 1_000_000


class Release(NamedTuple):
    """What one release was charged: entries of one run, round and mechanism. ``parties``: how many; ``first``: one of
    them; ``epsilon``: the most that one of them had spent then; ``last``: the chain up to the last of them."""

    first: Entry
    parties: int
    epsilon: float
    last: Head


@dataclass(frozen=True)
class Account:
    """One party's history, and what it was charged in its last round."""

    charges: Charges
    last: Charges
    delta: float

    def spent(self) -> tuple[float, float]:
        """Epsilon by loss distributions, which is the statement, and by Renyi divergences, the cross-check."""
        return epsilon(self.charges, self.delta), epsilon(self.charges, self.delta, "rdp")

    def after(self, rounds: int) -> float:
        """Epsilon after so many more rounds like the last, taking part in each."""
        charges = self.charges
        for charge in self.last if rounds else ():
            charges = extended(charges, charge._replace(times=charge.times * rounds))
        return epsilon(charges, self.delta)

    def rounds_left(self, budget: float) -> int:
        """How many more rounds like the last a budget allows; ``MANY`` if not fewer."""
        if self.after(1) > budget:
            return 0
        low, high = 1, 2
        while self.after(high) <= budget:
            if high >= MANY:
                return MANY
            low, high = high, min(2 * high, MANY)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.after(middle) <= budget else (low, middle)
        return low


@dataclass(frozen=True)
class Statement:
    """A verified ledger, read. ``most`` and ``median``: of the clients that were charged apart, by epsilon, ``clients``
    of them; ``reported``: what devices said of themselves last, ascending, and ``deltas`` at which."""

    head: Head
    runs: int
    delta: float
    releases: Sequence[Release]
    population: Account | None
    clients: int
    most: Account | None
    median: Account | None
    reported: Sequence[float]
    deltas: Sequence[float]


def state(ledger: Ledger, delta: float) -> Statement:
    """Read a ledger, checking its whole chain; epsilons are at ``delta``. Raises LedgerError at the first bad entry."""
    releases: dict[tuple[str, int, str, bool, bool], Release] = {}
    charges: dict[str, Charges] = {}
    latest: dict[str, list[Entry]] = {}
    said: dict[str, Entry] = {}
    head, runs = GENESIS, set()
    for entry in ledger.entries():
        head = entry.head
        runs.add(entry.run)
        key = (entry.run, entry.round, entry.mechanism, entry.reported, entry.party == POPULATION)
        before = releases.get(key, Release(entry, 0, 0.0, entry.head))
        spent = max(before.epsilon, entry.epsilon)
        releases[key] = Release(before.first, before.parties + 1, spent, entry.head)
        charge = entry.charge
        if charge is None:
            said[entry.party] = entry
            continue
        charges[entry.party] = extended(charges.get(entry.party, ()), charge)
        before_it = latest.get(entry.party, [])
        latest[entry.party] = [*(e for e in before_it if (e.run, e.round) == (entry.run, entry.round)), entry]
    accounts = {party: _account(party, charges, latest, delta) for party in charges}
    population = accounts.pop(POPULATION, None)
    ranked = sorted(accounts.values(), key=lambda account: epsilon(account.charges, delta))
    return Statement(
        head,
        len(runs),
        delta,
        list(releases.values()),
        population,
        len(ranked),
        ranked[-1] if ranked else None,
        ranked[len(ranked) // 2] if ranked else None,
        sorted(entry.epsilon for entry in said.values()),
        sorted({entry.delta for entry in said.values()}),
    )


def _account(
    party: str, charges: Mapping[str, Charges], latest: Mapping[str, Sequence[Entry]], delta: float
) -> Account:
    """A party's account: its own charges and the population's, and those of the later of their last rounds."""
    parties = {party, POPULATION} & charges.keys()
    entries = [entry for one in parties for entry in latest[one]]
    newest = max(entries)  # by number
    last = [entry.charge for entry in entries if (entry.run, entry.round) == (newest.run, newest.round)]
    return Account(
        merged(charge for one in parties for charge in charges[one]), merged(charge for charge in last if charge), delta
    )
