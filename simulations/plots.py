"""The plots of a report, each a function of a run (and of the uncompressed run beside it, if one was made).

A plot for which the run has no numbers is None. Names of clients never get into a drawing. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

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
    time_axis,
    to_svg,
    whole_axis,
)
from fedpress.simulations.records import ClientRecord, RoundRecord, curve, on_clients, own, stale, trained
from fedpress.simulations.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR: Final = 10.0  # an uncompressed level so many times above the bars is named in words, not drawn
_DASH: Final = (0, (3, 2))
_ON_CLIENTS: Final = ", on clients"
_Point: TypeAlias = tuple[float, float]


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
        accuracy_by_time(result, baseline),
        loss(result, baseline),
        fidelity_by_round(result),
        bytes_by_round(result),
        time_by_round(result),
    )
    return [plot for plot in drawn if plot is not None]


def accuracy_by_round(result: Result, baseline: Result | None) -> Plot | None:
    """Accuracy of the model after each round, its best round marked where it is not the last.

    None where clients alone measured it, with no run beside it: ``client_plots.by_round`` shows more.
    """
    ours, theirs = curve(result.rounds), curve(baseline.rounds) if baseline else []
    clients = on_clients(result.rounds)
    if not ours or (clients and not theirs and len(own(result.rounds, result.summary.clients)) > 1):
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    _curves(axes, ours, theirs)
    kept = [at for at in ours[:-1] if at[0] == result.summary.best_round]
    axes.plot(*_columns(kept), "o", color=B, markersize=4.5, markeredgewidth=0)
    percent_axis(axes)
    whole_axis(axes)
    best = max(ours, key=lambda at: at[1])
    alt = f"Accuracy against round: {units.share(ours[0][1])} at round {ours[0][0]}, "
    alt += f"best {units.share(best[1])} at round {best[0]}, {units.share(ours[-1][1])} at the end."
    keys = (*_curve_keys(theirs), *(Key("b", "dot", f"best, in round {n}") for n, _ in kept))
    title = "Accuracy by round" + _ON_CLIENTS * clients
    return Plot("accuracy-round", title, to_svg(figure, "ar"), alt + _versus(theirs), keys)


def accuracy_by_bytes(result: Result, baseline: Result | None) -> Plot | None:
    """Accuracy against all bytes sent so far in both directions, log scale."""
    ours, theirs = ([at for at in _against(run, _sent) if at[0]] for run in (result, baseline))
    if not ours:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("bytes sent so far, both directions")
    _curves(axes, ours, theirs)
    sent = [n for n, _ in (*ours, *theirs)]
    log_bytes_axis(axes, min(sent), max(sent))
    percent_axis(axes)
    alt = f"Accuracy against bytes: {units.share(ours[-1][1])} after {units.size(ours[-1][0])}."
    if theirs:
        alt += f" Uncompressed: {units.share(theirs[-1][1])} after {units.size(theirs[-1][0])}."
    note = _same_accuracy(ours, theirs) if theirs else ""
    return Plot("accuracy-bytes", "Accuracy by bytes sent", to_svg(figure, "ab"), alt, _curve_keys(theirs), note)


def accuracy_by_time(result: Result, baseline: Result | None) -> Plot | None:
    """Accuracy against time, where rounds are no measure of it: in virtual time, or with updates that come late."""
    ours, theirs = (_against(run, _elapsed) for run in (result, baseline))
    if not ours or not (result.summary.virtual or stale(result.rounds)):
        return None
    what = "virtual time" if result.summary.virtual else "time"
    figure, (axes,) = canvas()
    axes.set_xlabel(what)
    _curves(axes, ours, theirs)
    time_axis(axes.xaxis, max(at for at, _ in (*ours, *theirs)))
    percent_axis(axes)
    alt = f"Accuracy against {what}: {units.share(ours[-1][1])} after {units.duration(ours[-1][0])}."
    if theirs:
        alt += f" Uncompressed: {units.share(theirs[-1][1])} after {units.duration(theirs[-1][0])}."
    return Plot("accuracy-time", f"Accuracy by {what}", to_svg(figure, "at"), alt, _curve_keys(theirs))


def loss(result: Result, baseline: Result | None) -> Plot | None:
    """The model's loss on held-out data, and the mean training loss on clients."""
    served = curve(result.rounds, "loss")
    local = [(r.round, r.train_loss) for r in trained(result.rounds) if r.train_loss is not None]
    theirs = curve(baseline.rounds, "loss") if baseline else []
    lines = ((theirs, C, _DASH), (local, B, "-"), (served, A, "-"))
    held_out = "clients' held-out data" if on_clients(result.rounds, "loss") else "global model"
    keys = (Key("a", "line", held_out), Key("b", "line", "training"), Key("c", "dash", "uncompressed"))
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
    alt += f" {held_out.capitalize()}: {served[0][1]:.3g} to {served[-1][1]:.3g}." if served else ""
    alt += f" Training: {local[0][1]:.3g} to {local[-1][1]:.3g}." if local else ""
    return Plot("loss", "Loss by round", to_svg(figure, "lo"), alt, shown)


def fidelity_by_round(result: Result) -> Plot | None:
    """The share of the energy of what codecs were given that arrived: of updates, of their mean, of downloads."""
    rounds = trained(result.rounds)
    up = [(r.round, r.fidelity_up) for r in rounds if r.fidelity_up is not None]
    mean = [(r.round, r.fidelity_aggregate) for r in rounds if r.fidelity_aggregate is not None]
    down = [(r.round, r.fidelity_down) for r in rounds if r.fidelity_down is not None]
    if not up and not down:
        return None
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    lines = ((down, B, "-", "down"), (mean, C, _DASH, "mean of the updates, estimated"), (up, A, "-", "up"))
    for points, colour, style, _ in lines:
        if points:
            axes.plot(*_columns(points), color=colour, linestyle=style)
            axes.plot(*_columns(points[-1:]), "o", color=colour, markersize=4.5, markeredgewidth=0)
    axes.set_ylim(-0.02, 1.05)
    percent_axis(axes)
    whole_axis(axes)
    keys = (
        *((Key("a", "line", "up"),) if up else ()),
        *((Key("c", "dash", "mean of the updates, estimated"),) if mean else ()),
        *((Key("b", "line", "down"),) if down else ()),
    )
    alt = "Fidelity against round: " + ", ".join(
        f"{name} {units.share(points[0][1])} to {units.share(points[-1][1])}"
        for points, _, _, name in reversed(lines)
        if points
    )
    note = "Of the energy that codecs were given. With feedback, later payloads carry what earlier ones lost."
    return Plot("fidelity", "Fidelity by round", to_svg(figure, "fi"), f"{alt}.", keys, note)


def bytes_by_round(result: Result) -> Plot | None:
    """Payload bytes of each round, up and down stacked, against what uncompressed FedAvg would have sent."""
    last = result.rounds[-1] if result.rounds and result.rounds[-1].evaluation else None
    rounds = [r for r in result.rounds if (r.bytes_up or r.bytes_down) and r is not last]
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
    note = f"The final evaluation, not drawn, took {units.size(last.bytes_up + last.bytes_down)}." if last else ""
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


def time_by_round(result: Result) -> Plot | None:
    """Seconds of each round: training, encoding, and the rest (transfer, decoding, folding, evaluation). All in one
    where updates come late: their training is not of the round that counts them."""
    rounds = [r for r in trained(result.rounds) if r.seconds > 0 and r.clients]
    if not rounds:
        return None  # or nothing is written down of single clients
    # One process trains clients one after the other; elsewhere a round waits for its slowest client.
    inline = result.summary.engine == "inline" and not result.summary.virtual
    late = stale(result.rounds)
    train, encode, other = [], [], []
    for record in rounds:
        spent = (0.0, 0.0) if late else _spent(list(record.clients.values()), inline)
        train.append(min(spent[0], record.seconds))
        encode.append(min(spent[1], record.seconds - train[-1]))
        other.append(record.seconds - train[-1] - encode[-1])
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    stack(axes, [r.round for r in rounds], (A, train), (B, encode), (C, other))
    time_axis(axes.yaxis, max(r.seconds for r in rounds))
    whole_axis(axes)
    means = [sum(values) / len(rounds) for values in (train, encode, other)]
    alt = "Time per round, means: " + ", ".join(
        f"{name} {units.duration(mean)}" for name, mean in zip(("training", "encoding", "rest"), means, strict=True)
    )
    keys = (Key("a", "fill", "training"), Key("b", "fill", "encoding"), Key("c", "fill", "transfer and the rest"))
    note = "" if inline else "Training and encoding of the client that took longest."
    title = "Virtual time by round" if result.summary.virtual else "Time by round"
    if late:
        note = "From one version to the next. Clients train across versions."
        return Plot(
            "time", title, to_svg(figure, "ti"), f"Time per round, mean: {units.duration(means[-1])}.", (), note
        )
    return Plot("time", title, to_svg(figure, "ti"), f"{alt}.", keys, note)


def _columns(points: Sequence[_Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _against(run: Result | None, measure: Callable[[Sequence[RoundRecord]], Iterable[float]]) -> list[_Point]:
    """Accuracies against what ``measure`` gives for each round, summed up to its end; [] without a run."""
    if run is None:
        return []
    totals = dict(zip((r.round for r in run.rounds), measure(run.rounds), strict=True))
    return [(totals[n], value) for n, value in curve(run.rounds) if n in totals]


def _sent(rounds: Sequence[RoundRecord]) -> Iterable[float]:
    return accumulate(r.bytes_up + r.bytes_down for r in rounds)


def _elapsed(rounds: Sequence[RoundRecord]) -> Iterable[float]:
    return (r.elapsed for r in rounds)


def _same_accuracy(ours: Sequence[_Point], theirs: Sequence[_Point]) -> str:
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


def _curves(axes: Axes, ours: Sequence[_Point], theirs: Sequence[_Point]) -> None:
    """This run's accuracies, their last marked, over the uncompressed run's, if there is one."""
    if theirs:
        axes.plot(*_columns(theirs), color=C, linestyle=_DASH)
    axes.plot(*_columns(ours), color=A)
    axes.plot(*_columns(ours[-1:]), "o", color=A, markersize=4.5, markeredgewidth=0)


def _curve_keys(theirs: Sequence[object]) -> tuple[Key, ...]:
    return (Key("a", "line", "this run"), Key("c", "dash", "uncompressed")) if theirs else ()


def _versus(theirs: Sequence[_Point]) -> str:
    return f" Uncompressed: {units.share(theirs[-1][1])} at the end." if theirs else ""
