"""The benchmarks' drawings, each written as SVG and as PNG. Needs matplotlib."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fedpress.simulations.benchmarks.rate_distortion import Bound
from fedpress.simulations.drawing import MUTED, PAPER, C, canvas, log_bytes_axis, percent_axis, save, share_axis

#: Told apart by those who do not see all colours (Okabe, Ito 2008).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6f00", "#333333")
_SIZE: Final = (760, 460)
_MARKS: Final = "os^Dv"
_REPLAYED: Final = "* with its own memory: not on the numbers of the line"
_POINTS: Final = 400
_ROW, _MARGIN = 15, 80


def rate_distortion(points: Sequence[tuple[str, float, float]], shared: Bound, stem: Path) -> list[Path]:
    """Codecs as points of (text, bits per parameter, NMSE), and the bound of bare codecs. Errors are shown up to 1."""
    figure, (axes,) = canvas(size=_SIZE)
    shown = [point for point in points if point[2] <= 1]
    least = 0.7 * min((bits for _, bits, _ in shown), default=0.01)
    line = [(shared.bits(error), error) for error in (1 - (i + 0.5) / _POINTS for i in range(_POINTS))]
    bits, errors = zip(*[at for at in line if at[0] > least], strict=True)
    axes.plot(bits, errors, color=PAPER[C], linewidth=3, alpha=0.6, label="least for any memoryless code")
    families = _families([text for text, *_ in shown])
    for number, (family, texts) in enumerate(families.items()):
        at = sorted((bits, error) for text, bits, error in shown if text in texts)
        bits, errors = zip(*at, strict=True)
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number // len(_COLOURS) % len(_MARKS)]
        axes.plot(bits, errors, mark, linestyle="-", color=colour, markersize=4.5, linewidth=0.7, label=family)
    axes.set_xscale("log")
    axes.set_xlim(least, 40)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("bits per parameter")
    axes.set_ylabel("squared error over squared norm")
    axes.grid(visible=True, axis="x")
    axes.legend(loc="lower left", fontsize=8, frameon=False, title=_REPLAYED, title_fontsize=8, alignment="left")
    return save(figure, stem)


def accuracy_by_traffic(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, stem: Path) -> list[Path]:
    """Accuracy over bytes sent so far (log scale): a line per arm, as (bytes, accuracy)."""
    figure, (axes,) = canvas(size=_SIZE)
    for number, (arm, points) in enumerate(curves.items()):
        x, y = zip(*points, strict=True)
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(x, y, color=colour, label=arm)
        axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=4)
    sent = [at for points in curves.values() for at, _ in points]
    log_bytes_axis(axes, min(sent), max(sent))
    percent_axis(axes)
    axes.set_title(title, fontsize=10, color=PAPER[MUTED], loc="left")
    axes.set_xlabel("bytes sent so far, both directions, all clients")
    axes.set_ylabel("accuracy")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return save(figure, stem)


class Mark(NamedTuple):
    """An arm in a cell: shares lost of what uncompressed runs gain, at the end and in mid-run; the ratio of bytes."""

    end: float
    middle: float
    ratio: float


def losses(marks: Mapping[str, Sequence[Mark]], cells: Sequence[tuple[str, str]], stem: Path) -> list[Path]:
    """What each arm loses in each cell: ``marks`` by arm, one for each of the ``cells``, which are (half, name) and
    stand together by half."""
    labels: list[str] = []
    places: list[int] = []
    for number, (half, name) in enumerate(cells):
        if number == 0 or half != cells[number - 1][0]:
            labels.append(half)
        places.append(len(labels))
        labels.append(name)
    figure, (axes,) = canvas(size=(_SIZE[0], _MARGIN + _ROW * len(labels)))
    for number, (arm, found) in enumerate(marks.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        at = [y + 0.6 * (number + 0.5) / len(marks) - 0.3 for y in places]
        end, middle, ratios = zip(*found, strict=True)
        axes.hlines(at, end, middle, color=colour, linewidth=0.8)
        axes.plot(middle, at, "o", color=colour, markersize=4, fillstyle="none", label=f"{arm}, at a third")
        axes.plot(end, at, "o", color=colour, markersize=4, label=f"{arm}, at the end")
        for y, ratio in zip(at, ratios, strict=True) if len(marks) == 1 else ():
            axes.text(1.01, y, f"{ratio:.0f}x", fontsize=7, va="center", transform=axes.get_yaxis_transform())
    axes.axvline(0, color=PAPER[MUTED], linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    for row, label in enumerate(axes.get_yticklabels()):
        label.set_fontweight("normal" if row in places else "bold")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    share_axis(axes.xaxis)
    axes.grid(visible=True, axis="both")
    axes.set_xlabel("lost, of what uncompressed runs gain" + "; right: times less traffic" * (len(marks) == 1))
    figure.legend(loc="outside upper right", fontsize=8, frameon=False, ncols=4)
    return save(figure, stem)


def _families(texts: Sequence[str]) -> dict[str, list[str]]:
    """Codecs that differ only in their first options, under the text without them."""
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(re.sub(r":[0-9.]+", "", text), []).append(text)
    return found
