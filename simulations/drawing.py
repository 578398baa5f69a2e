"""How the report's plots are drawn: matplotlib to SVG that is inlined in a page and coloured by its CSS variables.

Text stays text (searchable, and in the page's font), colours are ``var(--...)`` so that one drawing serves light and
dark, and identifiers carry a prefix so that drawings share a page. Needs matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fedpress.errors import MissingExtra
from fedpress.simulations import units

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("The report", "report") from error

# matplotlib wants hex colours; these stand for the page's CSS variables until the SVG is written.
_VARIABLES: Final = {
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--a)",
    "#050505": "var(--b)",
    "#060606": "var(--c)",
}
MUTED, RULE, A, B, C = _VARIABLES
#: The same for a drawing on its own.
PAPER: Final = dict(zip(_VARIABLES, ("#62666f", "#e4e2dd", "#2563c9", "#d97a1c", "#8b8e97"), strict=True))
_WIDTH, _HEIGHT = 350, 204  # SVG user units: about CSS pixels
_MOST_BARS: Final = 60
_MINUTE: Final = 60
#: Seconds between ticks on a time axis: up to minutes, hours, days.
_STEPS: Final = (1, 2, 5, 10, 15, 30, *(60 * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440, 7200, 14400)))
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedpress",
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
    "text.color": MUTED,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def canvas(*heights: float, size: tuple[int, int] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per relative height, sharing the horizontal axis; one panel if none is given.

    For a report's page, with stand-ins for its colours; or, with a ``size``, on its own in the colours of paper.
    """
    width, height = size or (_WIDTH, _HEIGHT)
    with rc_context(_STYLE if size is None else {key: PAPER.get(value, value) for key, value in _STYLE.items()}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        panels = figure.subplots(max(1, len(heights)), 1, sharex=True, squeeze=False, height_ratios=heights or (1,))
    return figure, list(panels[:, 0])


def to_svg(figure: Figure, prefix: str) -> str:
    """The figure as an ``<svg>`` element without namespaces, metadata, fixed colours or ids that clash in a page."""
    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    _, _, body = buffer.getvalue().partition("<svg")
    body = re.sub(r"<metadata>.*?</metadata>", "", body.partition(">")[2], flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true" focusable="false">{body}'


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure that is on its own, as ``stem``.svg and ``stem``.png; their paths."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with rc_context(_STYLE):
        for path in paths:
            figure.savefig(path, dpi=144, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def stack(axes: Axes, rounds: Sequence[int], *layers: tuple[str, Sequence[float]]) -> None:
    """Layers of (colour, values) upon each other: bars, or an area where bars would be thinner than a line."""
    if len(rounds) > _MOST_BARS:
        colours, values = zip(*layers, strict=True)
        axes.stackplot(rounds, *values, colors=colours, step="mid", linewidth=0)
        return
    floor = [0.0] * len(rounds)
    for colour, heights in layers:
        axes.bar(rounds, heights, width=0.8, bottom=floor, color=colour)
        floor = [a + b for a, b in zip(floor, heights, strict=True)]


def percent_axis(axes: Axes) -> None:
    """Fractions as percent, upwards."""
    share_axis(axes.yaxis)


def share_axis(axis: Axis) -> None:
    """Fractions as percent."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def whole_axis(axes: Axes) -> None:
    """Whole numbers, across: rounds, clients."""
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def time_axis(axis: Axis, most: float) -> None:
    """Seconds from 0 to ``most``; whole minutes and hours where there are several."""
    step = next((s for s in _STEPS if most <= 7 * s), _STEPS[-1])
    axis.set_major_locator(MaxNLocator(6) if step == _STEPS[0] else MultipleLocator(step))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} s" if x < _MINUTE else units.duration(x)))


def bytes_axis(axes: Axes) -> None:
    """Bytes, upwards."""
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_size(value)))


def log_bytes_axis(axes: Axes, low: float, high: float) -> None:
    """Bytes between ``low`` and ``high`` (> 0) on a log scale, across; over a short range 2 and 5 have ticks too."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high >= 100 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_size(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _tick_size(value: float) -> str:
    number, _, unit = units.size(value).partition(" ")
    return f"{float(number):g} {unit}"
