"""The zoo's tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from fedpress.simulations import units
from fedpress.simulations.benchmarks.zoo.arms import RAW
from fedpress.simulations.benchmarks.zoo.measures import Line, Total

_CELLS: Final = (
    "raw at the\nend, %",
    "this\narm",
    "loss,\npoints",
    "loss at\na third",
    "more\nerror",
    "rounds to\ntarget",
    "total\ntraffic",
    "to the\ntarget",
)
_TOTALS: Final = (
    "cells",
    "loss,\npoints",
    "worst",
    "loss at\na third",
    "worst",
    "worst of\nmore error",
    "rounds to\ntarget",
    "never\nreached",
    "total traffic,\nmean",
    "geometric\nmean",
    "behind",
    "nothing",
)


def table(half: str, lines: Sequence[Line]) -> Table:
    """A row for each cell and arm of a half."""
    out = Table(title=half, title_justify="left")
    out.add_column("cell", no_wrap=True)
    out.add_column("arm")
    for name in _CELLS:
        out.add_column(name, justify="right")
    out.add_column("")
    before = ""
    for line in lines:
        if line.half != half or line.arm == RAW:
            continue
        some = f" ({line.reached} of {len(line.values)})" if 0 < line.reached < len(line.values) else ""
        numbers = [
            f"{100 * line.raw:.1f}" + f" ± {line.noise:.1f}" * (len(line.values) > 1),
            f"{100 * statistics.mean(line.values):.1f}",
            f"{line.loss:.1f}",
            f"{line.loss_mid:.1f}",
            _share(line.more_error),
            "never" if line.rounds is None else f"{line.rounds:.2f}x{some}",
            units.ratio(line.ratio, 1),
            "-" if line.ratio_to_target is None else units.ratio(line.ratio_to_target, 1),
        ]
        flag = "nothing" if line.nothing else "behind" if line.behind else ""
        out.add_row(escape(line.cell) if line.cell != before else "", escape(line.arm), *numbers, flag)
        before = line.cell
    return out


def summary(totals: Sequence[Total]) -> Table:
    """A row for each half and arm."""
    out = Table("half", "arm")
    for name in _TOTALS:
        out.add_column(name, justify="right")
    for one in totals:
        if one.arm == RAW:
            continue
        numbers = [str(one.cells), *(f"{v:.1f}" for v in (one.loss, one.worst, one.loss_mid, one.worst_mid))]
        numbers += [_share(one.more_error), "-" if one.rounds is None else f"{one.rounds:.2f}x", str(one.missed)]
        numbers += [units.ratio(one.ratio, 1), units.ratio(one.geometric_ratio, 1), str(one.behind), str(one.nothing)]
        out.add_row(one.half, escape(one.arm), *numbers)
    out.caption = "behind: more than a point, beyond noise. nothing: an arm learns less than half of what raw gains."
    return out


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.0f} %"
