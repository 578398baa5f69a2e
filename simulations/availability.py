"""When a simulated client is there: always, by day, or as a trace says.

A pure function of the plan's seed, the client's name and the time, so that every engine, every run and every resumption
sees the same. Time is the number of the round, or seconds into the run (``clients.availability_in``).

    always     as it says
    diurnal    each client is there while a sine of the time is high: once a day, in one stretch, for a share of it.
               Phases are drawn uniformly per client, as of devices all over the world. Bonawitz et al. (*Towards
               federated learning at scale*, MLSys 2019) see devices come and go by day, Eichner et al. (*Semi-cyclic
               SGD*, ICML 2019) what that does to training
    a file     a trace: lines ``client,from,to`` under that heading. The client is there from ``from`` (included) to
               ``to`` (not included), and at no other time; a client without a line never is. After the last ``to`` the
               trace begins anew: in seconds at 0, in rounds at 1. Lines that begin with # are comments

A client that is not there asks for no work; what it has begun it finishes. The server of a simulation knows who is
there, as if each connection broke at once: real servers take those for present that called shortly before.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from fedpress.compression.stream import Stream
from fedpress.errors import PlanError, closest
from fedpress.plan import Plan

Spans: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]

_COLUMNS: Final = ["client", "from", "to"]
#: Seconds after which a client that waits for a round looks whether it has come.
_LOOK_S: Final = 1.0


class Rule(Protocol):
    """When clients are there."""

    def available(self, name: str, now: float) -> bool:
        """The client is there now."""

    def wait(self, name: str, now: float) -> float:
        """How long until it is there: 0 if it is; infinity: it never comes."""


@dataclass(frozen=True)
class Diurnal:
    """There for ``share`` of each day of length ``day``, from a time of day of its own."""

    seed: int
    share: float
    day: float

    def available(self, name: str, now: float) -> bool:
        """The sine is above the threshold that it is above for a share of its period: one stretch of the phase."""
        return self._phase(name, now) < self.share

    def wait(self, name: str, now: float) -> float:
        """The rest of the day."""
        return 0.0 if self.available(name, now) else (1.0 - self._phase(name, now)) * self.day

    def _phase(self, name: str, now: float) -> float:
        return (now / self.day + float(Stream.of(self.seed, "availability", name).uniform(1)[0])) % 1.0


@dataclass(frozen=True)
class Trace:
    """There within ``spans`` (from, to), time running from ``first`` to the end of the last of them and again."""

    spans: Spans
    first: float

    def available(self, name: str, now: float) -> bool:
        """Within one of the client's spans."""
        at = self._at(now)
        return any(begin <= at < end for begin, end in self.spans.get(name, ()))

    def wait(self, name: str, now: float) -> float:
        """Until the next of its spans begins, if need be after the trace began anew."""
        at, own = self._at(now), self.spans.get(name, ())
        if self.available(name, now):
            return 0.0
        later = [begin - at for begin, _ in own if begin > at]
        return min(later or [self._length + begin - at for begin, _ in own], default=math.inf)

    @property
    def _length(self) -> float:
        return max(end for own in self.spans.values() for _, end in own) - self.first

    def _at(self, now: float) -> float:
        return self.first + (now - self.first) % self._length


@dataclass(frozen=True)
class Availability:
    """A rule, and which time it goes by."""

    rule: Rule
    in_rounds: bool

    def here(self, name: str, round_: int, seconds: float) -> bool:
        """The client is there, in this round, so many seconds into the run."""
        return self.rule.available(name, round_ if self.in_rounds else seconds)

    def away(self, name: str, round_: int, seconds: float) -> float:
        """Seconds until it is worth asking for work; 0: now."""
        if not self.in_rounds:
            return self.rule.wait(name, seconds)
        return 0.0 if self.rule.available(name, round_) else _LOOK_S


def availability(plan: Plan, names: Sequence[str]) -> Availability | None:
    """What the plan says of when the clients ``names`` are there; None: always.

    Raises PlanError for a trace that cannot be read, or where a round would have too few clients to begin.
    """
    clients = plan.clients
    if clients.availability == "always":
        return None
    made = Availability(_KINDS.get(clients.availability, _trace)(plan, names), clients.availability_in == "rounds")
    for round_ in range(1, plan.run.rounds + 1) if made.in_rounds else ():
        found = sum(made.here(name, round_, 0.0) for name in names)
        if found < plan.cohort.min_updates:
            raise PlanError(
                f"Expected at least {plan.cohort.min_updates} clients (cohort.min_updates) in round {round_}, "
                f"{found} are there (clients.availability = '{clients.availability}')."
            )
    return made


def parse(lines: Iterable[str], names: Sequence[str], where: str) -> Spans:
    """The spans in the lines of a trace, of the clients ``names``. Raises PlanError, naming the line of ``where``."""
    spans: dict[str, list[tuple[float, float]]] = {}
    heading = False
    for number, row in enumerate(csv.reader(lines), start=1):
        if not row or row[0].startswith("#"):
            continue
        if not heading:
            if [cell.strip() for cell in row] != _COLUMNS:
                raise PlanError(f"Expected the heading '{','.join(_COLUMNS)}' in line {number} of {where}, got {row}.")
            heading = True
            continue
        name, begin, end = _span(row, f"line {number} of {where}")
        if name not in names:
            raise PlanError(f"No client is called '{name}' (line {number} of {where}). {closest(name, names)}")
        spans.setdefault(name, []).append((begin, end))
    if not spans:
        raise PlanError(f"Expected lines {','.join(_COLUMNS)} in {where}, got none: nobody would ever be there.")
    return spans


def _span(row: Sequence[str], where: str) -> tuple[str, float, float]:
    try:
        name, begin, end = row[0].strip(), *map(float, row[1:])
    except ValueError as error:
        raise PlanError(f"Expected {','.join(_COLUMNS)} with two numbers in {where}, got {','.join(row)!r}.") from error
    if not 0 <= begin < end < math.inf:
        raise PlanError(f"Expected 0 <= from < to in {where}, got {','.join(row)!r}.")
    return name, begin, end


def _diurnal(plan: Plan, _: Sequence[str]) -> Rule:
    return Diurnal(plan.run.seed, plan.clients.available, plan.clients.day)


def _trace(plan: Plan, names: Sequence[str]) -> Rule:
    path = Path(plan.clients.availability)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            spans = parse(lines, names, f"the trace '{path}'")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"Expected 'always', 'diurnal' or the path of a trace, got '{path}': "
            f"{getattr(error, 'strerror', None) or error} (clients.availability)."
        ) from error
    return Trace(spans, 1.0 if plan.clients.availability_in == "rounds" else 0.0)


_KINDS: Final[Mapping[str, Callable[[Plan, Sequence[str]], Rule]]] = {"diurnal": _diurnal}
