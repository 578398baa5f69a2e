"""The report's two drawings of what compression did to the run's last updates. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from fedpress.simulations import units
from fedpress.simulations.distortion import CELLS, REACH, Layer
from fedpress.simulations.drawing import A, C, canvas, to_svg
from fedpress.simulations.plots import Key, Plot

#: Layers that have room in one drawing; of more, the largest are shown.
_MOST: Final = 8
_LONGEST_NAME: Final = 18
#: Parameters, over all clients, of which a histogram shows a shape.
_ENOUGH: Final = 2000
_ABOUT: Final = "Over the last round's updates of all simulated clients."


def distortion_plots(layers: Mapping[str, Layer]) -> list[Plot]:
    """Histogram of errors, and share of zeros; none if no client noted anything."""
    layers = {name: layer for name, layer in layers.items() if layer.size}
    return [errors(layers), zeros(layers)] if layers else []


def errors(layers: Mapping[str, Layer]) -> Plot:
    """What was to be coded less what arrived, in root mean squares: the share of parameters in each cell, log scale."""
    figure, (axes,) = canvas()
    axes.set_xlabel("error, in root mean squares of what was coded")
    edges = [REACH * (2 * i / CELLS - 1) for i in range(CELLS + 1)]
    for layer in _largest(layers).values():
        if layer.size >= _ENOUGH:
            axes.stairs([n / layer.size or math.nan for n in layer.counts], edges, color=C, linewidth=0.8, alpha=0.7)
    size = sum(layer.size for layer in layers.values())
    whole = [sum(cell) / size for cell in zip(*(layer.counts for layer in layers.values()), strict=True)]
    axes.stairs([share or math.nan for share in whole], edges, color=A, linewidth=1.8)
    axes.set_yscale("log")
    axes.set_ylim(0.5 * min(share for share in whole if share), 1.5)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    exact = whole[CELLS // 2]
    alt = f"Histogram of quantisation errors: {units.share(exact)} of the parameters within "
    alt += f"{REACH / CELLS:.2f} root mean squares, outermost cells {units.share(whole[0] + whole[-1])}."
    keys = (Key("a", "line", "all parameters"), Key("c", "line", "each layer"))
    return Plot("errors", "Quantisation errors", to_svg(figure, "er"), alt, keys, _ABOUT)


def zeros(layers: Mapping[str, Layer]) -> Plot:
    """The share of each layer's parameters that arrived as zeros."""
    shown = _largest(layers)
    shares = [layer.zeros / layer.size for layer in shown.values()]
    figure, (axes,) = canvas()
    names = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}" for name in shown
    ]
    places = range(len(shown), 0, -1)
    axes.barh(places, shares, height=0.7, color=A)
    axes.set_yticks(places, names, parse_math=False)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    alt = "Share of zeros: " + ", ".join(f"{n} {units.share(s)}" for n, s in zip(shown, shares, strict=True)) + "."
    more = f" The {_MOST} largest of {len(layers)} layers." if len(layers) > _MOST else ""
    return Plot("zeros", "Zeros that arrived, by layer", to_svg(figure, "ze"), alt, (), _ABOUT + more)


def _largest(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The largest layers, in the model's order."""
    names = sorted(layers, key=lambda name: -layers[name].size)[:_MOST]
    return {name: layer for name, layer in layers.items() if name in names}
