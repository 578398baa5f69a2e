"""Numbers and names as people read them: bytes (kB = 1000 bytes), seconds, ratios. One place, so all outputs agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_PREFIXES: Final = ("", "k", "M", "G", "T", "P")


def scaled(value: float, unit: str) -> str:
    """``value`` with a decimal prefix and three significant digits: ``scaled(61_234_000, "B")`` is ``61.2 MB``."""
    power = 0
    while abs(value) >= 999.5 and power + 1 < len(_PREFIXES):
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 and value == int(value) else 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()


def size(n: float) -> str:
    """Bytes: ``8.12 kB``."""
    return scaled(n, "B")


def duration(seconds: float) -> str:
    """Seconds, as ``8 ms``, ``0.81 s``, ``42 s``, ``3:07`` (minutes) or ``1:02:03`` (hours)."""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ratio(uncompressed: float, actual: float) -> str:
    """How many times less than uncompressed: ``50.1x``; a dash where nothing was sent."""
    if actual <= 0 or uncompressed <= 0:
        return "-"
    times = uncompressed / actual
    return f"{times:.0f}x" if times >= 999.5 else f"{times:.3g}x" if times >= 99.5 else f"{times:.1f}x"


def share(value: float) -> str:
    """A fraction in percent: ``97.3 %``."""
    return f"{100 * value:.1f} %"


def points(delta: float) -> str:
    """A difference of fractions in percentage points, signed: ``-0.4 points``."""
    text = f"{100 * delta:+.1f}"
    return f"{'0.0' if float(text) == 0 else text} points"


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """At most ``width`` characters, one per value or per mean of neighbours, from the smallest to the largest."""
    levels = ".:-=+*#" if ascii_only else "▁▂▃▄▅▆▇█"
    columns = min(width, len(values))
    edges = [round(i * len(values) / columns) for i in range(columns + 1)] if columns else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = (high - low) or 1.0
    return "".join(levels[round((value - low) / span * (len(levels) - 1))] for value in means)


def printable(text: str) -> str:
    """``text`` with a question mark for every character that could move a cursor or change a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
