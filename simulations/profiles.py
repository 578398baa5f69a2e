"""How fast each simulated client is: its steps, its encoding, its link, how often it is away. For virtual time.

The plan's section [fleet] describes the *usual* client, the median. Every client draws two factors from the run's seed
and its own name, one for its work and one for its link: exp(sigma * z) with a standard normal z, so that half the fleet
is slower and half faster. ``slow_share`` of the clients, rounded and drawn, are slower still by ``slow_factor``. Real
fleets differ so much: speeds and bandwidths span more than an order of magnitude (Lai et al., *FedScale*, 2022).

``fleet.profiles`` names a CSV file with a header instead. Its column ``client`` names every client of the run once; its
other columns are among the fields of ``Profile`` and hold that client's own values, without any factor. What has no
column is drawn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import Final

from fedpress.compression.stream import Stream
from fedpress.errors import PlanError, closest
from fedpress.sections import Fleet

#: The column that says whose line it is.
_WHO: Final = "client"


@dataclass(frozen=True)
class Profile:
    """One client. ``_s`` are seconds, ``_rate`` per second: bytes on the link, parameters for ``encode_rate``.

    ``dropout``: probability of being away between training and upload, then for ``away_s`` on average.
    """

    step_s: float
    encode_rate: float
    up_rate: float
    down_rate: float
    latency_s: float
    dropout: float
    away_s: float


_FIELDS: Final = tuple(field.name for field in fields(Profile))


def profiles(fleet: Fleet, names: Sequence[str], seed: int) -> dict[str, Profile]:
    """Each client's profile, by name. Raises PlanError for a file that does not describe exactly these clients."""
    slow = _slow(fleet, names, seed)
    drawn = {name: _draw(fleet, name, seed, name in slow) for name in names}
    if fleet.profiles is None:
        return drawn
    given = _read(fleet.profiles, names)
    return {name: replace(drawn[name], **given[name]) for name in names}


def _draw(fleet: Fleet, name: str, seed: int, slow: bool) -> Profile:
    work = _factor(fleet.step_spread, seed, name, "step") * (fleet.slow_factor if slow else 1.0)
    link = _factor(fleet.link_spread, seed, name, "link")
    return Profile(
        step_s=fleet.step_s * work,
        encode_rate=fleet.encode_rate / work,
        up_rate=fleet.up_rate / link,
        down_rate=fleet.down_rate / link,
        latency_s=fleet.latency_s,
        dropout=fleet.dropout,
        away_s=fleet.away_s,
    )


def _slow(fleet: Fleet, names: Sequence[str], seed: int) -> set[str]:
    """Exactly the share, rounded: a third of nine clients is three of them."""
    drawn = sorted(names, key=lambda name: (Stream.of(seed, name, "slow").seed(), name))
    return set(drawn[: round(fleet.slow_share * len(names))])


def _factor(sigma: float, seed: int, name: str, what: str) -> float:
    uniform = ((Stream.of(seed, name, what).seed() >> 10) + 0.5) / 2**53  # in (0, 1), both ends excluded
    return math.exp(sigma * NormalDist().inv_cdf(uniform))


def _read(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The values given for each client."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, skipinitialspace=True, strict=True)
            _check_header(path, rows.fieldnames or ())
            found: dict[str, dict[str, float]] = {}
            for row in rows:
                where = f"line {rows.line_num} of '{path}' (fleet.profiles)"
                name = row.pop(_WHO) or ""
                if name not in names or name in found:
                    why = "is there twice" if name in found else f"is no client of this run. {closest(name, names)}"
                    raise PlanError(f"Expected one line per client; '{name}' {why} In {where}.")
                if None in row or None in row.values():
                    raise PlanError(f"Expected as many values as the header has columns in {where}.")
                found[name] = {key: _number(key, text, where) for key, text in row.items()}
    except OSError as error:
        raise PlanError(f"Cannot read '{path}': {error.strerror} (fleet.profiles).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise PlanError(f"'{path}' is not a CSV file: {error} (fleet.profiles).") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise PlanError(
            f"Expected one line per client in '{path}', found none for '{missing[0]}' and {len(missing) - 1} more "
            "(fleet.profiles)."
        )
    return found


def _check_header(path: Path, columns: Iterable[str]) -> None:
    columns = list(columns)
    if _WHO not in columns or len(set(columns)) < len(columns):
        raise PlanError(f"Expected a header with '{_WHO}', each column once, in '{path}', got {columns}.")
    for column in columns:
        if column not in (_WHO, *_FIELDS):
            raise PlanError(f"Unknown column '{column}' in '{path}' (fleet.profiles). {closest(column, _FIELDS)}")


def _number(key: str, text: str, where: str) -> float:
    try:
        Fleet.model_validate({key: text})  # the same ranges as the plan's keys
    except ValueError as error:
        raise PlanError(f"Expected a number that fleet.{key} could have, got '{text}' in {where}.") from error
    return float(text)


if not set(_FIELDS) <= set(Fleet.model_fields):
    raise RuntimeError("Every field of a profile must be a key of the plan's section [fleet].")
