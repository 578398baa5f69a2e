"""What a line of the privacy ledger says, and the hash that chains it to the line before.

A ``Spend`` is composed with all else that its party spent; a ``Report`` is a device's own statement and is kept as it
came. The hash of an entry is the SHA-256 of the one before it and of the entry's contents as canonical JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from fedpress.errors import PrivacyError
from fedpress.privacy.accountants import Charge, checked

#: Everybody: one statement that holds for each client alike.
POPULATION: Final = "population"
_CLIENT: Final = "client:"

Fact: TypeAlias = str | int | float | bool | None


def client(name: str) -> str:
    """The party that one client is."""
    return f"{_CLIENT}{name}"


def spoken(party: str) -> str:
    """A party in a sentence."""
    return "the population" if party == POPULATION else f"client '{party.removeprefix(_CLIENT)}'"


@dataclass(frozen=True)
class Spend:
    """What one party spends on one release. ``facts``: what else a reader must know (bound, cohort, ...), and only
    what is the same when the round is done again after a crash."""

    party: str
    charge: Charge
    mechanism: str = "gaussian"
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a device says that it has spent in all, by its own accounting, at ``delta``; ``facts``: by which noise."""

    party: str
    epsilon: float
    delta: float
    mechanism: str = "dp-sgd on the device"
    facts: Mapping[str, Fact] = field(default_factory=dict)


class Head(NamedTuple):
    """The last entry's number (0: none) and hash: who keeps it can tell whether a ledger still holds all it did."""

    number: int
    hash: str


#: Before the first entry.
GENESIS: Final = Head(0, hashlib.sha256(b"fedpress ledger 1").hexdigest())


class Entry(NamedTuple):
    """One line of the ledger. ``epsilon``: all that the party has spent up to here, at ``delta``; of a ``reported``
    entry, what the device said. ``time``: UTC, ISO 8601. ``hash``: SHA-256, hex."""

    number: int
    run: str
    round: int
    party: str
    mechanism: str
    parameters: Mapping[str, Fact]
    epsilon: float
    delta: float
    reported: bool
    time: str
    hash: str

    @property
    def charge(self) -> Charge | None:
        """What was charged; None where a device reported."""
        if self.reported:
            return None
        return checked(Charge(*(self.parameters[name] for name in Charge._fields)))  # type: ignore[arg-type]

    @property
    def head(self) -> Head:
        """The chain up to this entry."""
        return Head(self.number, self.hash)

    def same(self, line: Spend | Report) -> bool:
        """Whether ``line`` says what is written here."""
        said = (line.epsilon, line.delta) if isinstance(line, Report) else (self.epsilon, self.delta)
        return self.parameters == parameters(line) and (self.epsilon, self.delta) == said

    def row(self) -> tuple[object, ...]:
        """As a database keeps it."""
        return (*self[:5], canonical(self.parameters), *self[6:])


def unpacked(row: Sequence[object]) -> Entry:
    """Inverse of ``Entry.row``. Raises ValueError or TypeError."""
    return Entry(*row)._replace(parameters=json.loads(str(row[5])), reported=bool(row[8]))  # type: ignore[arg-type]


def parsed(row: Sequence[object], before: Head) -> Entry | None:
    """The entry that a row is, if it is what was written behind ``before``; else None."""
    try:
        entry = unpacked(row)
        intact = entry == sealed(entry, before) and (entry.charge is None) == entry.reported
    except (ValueError, TypeError, LookupError, PrivacyError):
        return None
    return entry if intact else None


def sealed(entry: Entry, before: Head) -> Entry:
    """``entry`` with the number and the hash that it has behind ``before``."""
    numbered = entry._replace(number=before.number + 1)
    text = canonical([before.hash, *numbered[:-1]])
    return numbered._replace(hash=hashlib.sha256(text.encode()).hexdigest())


def parameters(line: Spend | Report) -> dict[str, Fact]:
    """What an entry keeps of a line's contents. Raises PrivacyError for a line that means nothing."""
    if line.party != POPULATION and not (line.party.startswith(_CLIENT) and line.party.removeprefix(_CLIENT)):
        raise PrivacyError(f"Expected the party '{POPULATION}' or '{_CLIENT}NAME', got '{line.party}'.")
    if isinstance(line, Report):
        if not (0 <= line.epsilon < math.inf and 0 < line.delta < 1):
            raise PrivacyError(f"Expected a finite epsilon >= 0 and 0 < delta < 1 of {spoken(line.party)}, got {line}.")
        return dict(line.facts)
    noise, sampling, rate, times = checked(line.charge)
    return {**line.facts, **Charge(float(noise), sampling, float(rate), int(times))._asdict()}


def canonical(value: object) -> str:
    """JSON that is the same for the same value: keys sorted, no spaces, numbers as Python repeats them."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PrivacyError(
            f"Expected a ledger's facts to be text, finite numbers and truths, got {value!r}."
        ) from error
