"""The plots of a report, each a function of a run (and of the uncompressed run beside it, if one was made).

A plot for which the run has no numbers is None. Names of clients never get into a drawing. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

from fedpress.server.spread import spread as spread_of
from fedpress.server.spread import tenth
from fedpress.simulations import units
from fedpress.simulations.drawing import (
    A,
    B,
    C,
    bytes_axis,
    canvas,
    log_bytes_axis,
    percent_axis,
    stack,
    to_svg,
    whole_axis,
)
from fedpress.simulations.records import ClientRecord, RoundRecord, curve, latest, trained
from fedpress.simulations.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR: Final = 10.0  # an uncompressed level so many times above the bars is named in words, not drawn
_DASH: Final = (0, (3, 2))


class Key(NamedTuple):
    """One entry of a legend: colour (``a``, ``b``, ``c``), mark (``line``, ``dash``, ``fill``, ``dot``) and label."""

    colour: str
    shape: str
    label: str


@dataclass(frozen=True)
class Plot:
    """A drawing with what the page says about it. ``alt`` carries the numbers for those who do not see it."""

    name: str
    title: str
    svg: str
    alt: str
    keys: tuple[Key, ...] = ()
    note: str = ""


def plots(result: Result, baseline: Result | None) -> list[Plot]:
    """Every plot that the run has numbers for, in the page's order."""
    drawn = (
        accuracy_by_round(result, baseline),
        accuracy_by_bytes(result, baseline),
        loss(result, baseline),
        bytes_by_round(result),
        spread(result),
        time_by_round(result),
    )
    return [plot for plot in drawn if plot is not None]


def accuracy_by_round(result: Result, baseline: Result | None) -> Plot | None:
    """Accuracy of the global model after each round."""
    ours, theirs = curve(result.rounds), curve(baseline.rounds) if baseline else []
    if not ours:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    if theirs:
        axes.plot(*_columns(theirs), color=C, linestyle=_DASH)
    axes.plot(*_columns(ours), color=A)
    _mark_last(axes, ours)
    percent_axis(axes)
    whole_axis(axes)
    best = max(ours, key=lambda at: at[1])
    alt = f"Accuracy against round: {units.share(ours[0][1])} at round {ours[0][0]}, "
    alt += f"best {units.share(best[1])} at round {best[0]}, {units.share(ours[-1][1])} at the end."
    return Plot("accuracy-round", "Accuracy by round", to_svg(figure, "ar"), alt + _versus(theirs), _curve_keys(theirs))


def accuracy_by_bytes(result: Result, baseline: Result | None) -> Plot | None:
    """Accuracy against all bytes sent so far in both directions, log scale."""
    ours, theirs = _by_bytes(result.rounds), _by_bytes(baseline.rounds) if baseline else []
    if not ours:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("bytes sent so far, both directions")
    if theirs:
        axes.plot(*_columns(theirs), color=C, linestyle=_DASH)
    axes.plot(*_columns(ours), color=A)
    _mark_last(axes, ours)
    sent = [n for n, _ in (*ours, *theirs)]
    log_bytes_axis(axes, min(sent), max(sent))
    percent_axis(axes)
    alt = f"Accuracy against bytes: {units.share(ours[-1][1])} after {units.size(ours[-1][0])}."
    if theirs:
        alt += f" Uncompressed: {units.share(theirs[-1][1])} after {units.size(theirs[-1][0])}."
    note = _same_accuracy(ours, theirs) if theirs else ""
    return Plot("accuracy-bytes", "Accuracy by bytes sent", to_svg(figure, "ab"), alt, _curve_keys(theirs), note)


def loss(result: Result, baseline: Result | None) -> Plot | None:
    """The global model's loss, and the mean training loss on clients."""
    served = curve(result.rounds, "loss")
    local = [(r.round, r.train_loss) for r in trained(result.rounds) if r.train_loss is not None]
    theirs = curve(baseline.rounds, "loss") if baseline else []
    lines = ((theirs, C, _DASH), (local, B, "-"), (served, A, "-"))
    keys = (Key("a", "line", "global model"), Key("b", "line", "training"), Key("c", "dash", "uncompressed"))
    if not served and not local:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    for points, colour, style in lines:
        if points:
            axes.plot(*_columns(points), color=colour, linestyle=style)
    axes.set_ylim(bottom=0)
    whole_axis(axes)
    shown = tuple(key for key, points in zip(keys, (served, local, theirs), strict=True) if points)
    alt = "Loss against round."
    alt += f" Global model: {served[0][1]:.3g} to {served[-1][1]:.3g}." if served else ""
    alt += f" Training: {local[0][1]:.3g} to {local[-1][1]:.3g}." if local else ""
    return Plot("loss", "Loss by round", to_svg(figure, "lo"), alt, shown)


def bytes_by_round(result: Result) -> Plot | None:
    """Payload bytes of each round, up and down stacked, against what uncompressed FedAvg would have sent."""
    rounds = [r for r in result.rounds if r.bytes_up or r.bytes_down]
    if not rounds:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    up, down = [r.bytes_up for r in rounds], [r.bytes_down for r in rounds]
    stack(axes, [r.round for r in rounds], (B, down), (A, up))
    top = max(a + b for a, b in zip(up, down, strict=True))
    training = trained(rounds) or rounds
    level = sum(r.bytes_up_uncompressed + r.bytes_down_uncompressed for r in training) / len(training)
    keys = [Key("a", "fill", "up"), Key("b", "fill", "down")]
    note = "The last bar is the final evaluation." if rounds[-1].evaluation else ""
    if 0 < level <= _FAR * top:
        axes.axhline(level, color=C, linestyle=_DASH, linewidth=1.6)
        keys.append(Key("c", "dash", "uncompressed, mean"))
    elif level:
        note = f"Uncompressed would be {units.size(level)} per round, far above this scale. {note}".rstrip()
    bytes_axis(axes)
    whole_axis(axes)
    mean = [sum(values) / len(rounds) for values in (up, down)]
    alt = f"Bytes per round, means: {units.size(mean[0])} up, {units.size(mean[1])} down; "
    alt += f"uncompressed {units.size(level)} in both directions."
    return Plot("bytes", "Bytes by round", to_svg(figure, "by"), alt, tuple(keys), note)


def spread(result: Result) -> Plot | None:
    """Accuracy of each client on its own held-out data, sorted, over the number of its examples; the worst tenth
    apart."""
    measured = {name: c.metrics["accuracy"] for name, c in latest(result.rounds).items() if "accuracy" in c.metrics}
    over = spread_of(measured.values())
    if over is None:
        return None
    names = sorted(measured, key=lambda name: measured[name])
    values, x = [measured[name] for name in names], range(1, len(names) + 1)
    examples = [max(r.clients[name].examples for r in result.rounds if name in r.clients) for name in names]
    figure, (axes, below) = canvas(2, 1)
    if len(values) > 3:
        low, _, high = quantiles(values, n=4, method="inclusive")
        axes.axhspan(low, high, color=C, alpha=0.16, linewidth=0)
    axes.axhline(median(values), color=C, linewidth=1.2)
    worst, size = tenth(len(values)), 4.5 if len(values) <= 60 else 2.5
    for colour, some in ((B, slice(None, worst)), (A, slice(worst, None))):
        axes.plot(x[some], values[some], "o", color=colour, markersize=size, markeredgewidth=0)
    percent_axis(axes)
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)
    below.bar(x, examples, width=0.7, color=C)
    below.set_ylabel("examples")
    figure.align_ylabels()
    below.set_xlabel("clients, by accuracy")
    below.set_xticks([])
    below.locator_params(axis="y", nbins=2)
    alt = f"Accuracy per client, last report of {len(values)}: lowest {units.share(values[0])}, "
    alt += f"median {units.share(median(values))}, highest {units.share(values[-1])}."
    keys = (
        Key("a", "dot", "a client's held-out data"),
        Key("b", "dot", "worst tenth"),
        Key("c", "line", "median, and middle half"),
    )
    note = f"Mean {units.share(over.mean)}, standard deviation {units.points(over.deviation).lstrip('+')}, "
    note += f"worst tenth {units.share(over.worst_decile)}; every client counts once."
    return Plot("spread", "Accuracy across clients", to_svg(figure, "sp"), alt, keys, note)


def time_by_round(result: Result) -> Plot | None:
    """Seconds of each round: training, encoding, and the rest (transfer, decoding, folding, evaluation)."""
    rounds = [r for r in trained(result.rounds) if r.seconds > 0 and r.clients]
    if not rounds:
        return None  # or nothing is written down of single clients
    # One process trains clients one after the other; elsewhere a round waits for its slowest client.
    inline = result.summary.engine == "inline" and not result.summary.virtual
    train, encode, other = [], [], []
    for record in rounds:
        spent = _spent(list(record.clients.values()), inline)
        train.append(min(spent[0], record.seconds))
        encode.append(min(spent[1], record.seconds - train[-1]))
        other.append(record.seconds - train[-1] - encode[-1])
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    stack(axes, [r.round for r in rounds], (A, train), (B, encode), (C, other))
    axes.yaxis.set_major_formatter("{x:g} s")
    whole_axis(axes)
    means = [sum(values) / len(rounds) for values in (train, encode, other)]
    alt = "Time per round, means: " + ", ".join(
        f"{name} {units.duration(mean)}" for name, mean in zip(("training", "encoding", "rest"), means, strict=True)
    )
    keys = (Key("a", "fill", "training"), Key("b", "fill", "encoding"), Key("c", "fill", "transfer and the rest"))
    note = "" if inline else "Training and encoding of the client that took longest."
    title = "Virtual time by round" if result.summary.virtual else "Time by round"
    return Plot("time", title, to_svg(figure, "ti"), alt + ".", keys, note)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _by_bytes(rounds: Sequence[RoundRecord]) -> list[tuple[float, float]]:
    totals = dict(zip((r.round for r in rounds), accumulate(r.bytes_up + r.bytes_down for r in rounds), strict=True))
    return [(totals[n], value) for n, value in curve(rounds) if totals.get(n)]


def _same_accuracy(ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> str:
    """What either run had sent when it first reached the accuracy that both reach."""
    target = min(max(value for _, value in points) for points in (ours, theirs))
    here, there = (next(n for n, value in points if value >= target) for points in (ours, theirs))
    times = units.ratio(there, here)
    return f"{units.share(target)} after {units.size(here)}; uncompressed, after {units.size(there)}: {times}."


def _spent(clients: Sequence[ClientRecord], inline: bool) -> tuple[float, float]:
    if inline:
        return sum(c.train_seconds for c in clients), sum(c.encode_seconds for c in clients)
    slowest = max(clients, key=lambda c: c.train_seconds + c.encode_seconds, default=ClientRecord())
    return slowest.train_seconds, slowest.encode_seconds


def _mark_last(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    axes.plot(*_columns(points[-1:]), "o", color=A, markersize=4.5, markeredgewidth=0)


def _curve_keys(theirs: Sequence[object]) -> tuple[Key, ...]:
    return (Key("a", "line", "this run"), Key("c", "dash", "uncompressed")) if theirs else ()


def _versus(theirs: Sequence[tuple[float, float]]) -> str:
    return f" Uncompressed: {units.share(theirs[-1][1])} at the end." if theirs else ""
