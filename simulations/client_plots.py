"""The report's drawings of how clients fare: on their own data over the rounds and one by one, and how late they were.

Every client counts once, as in ``fedpress.server.spread``. Names of clients never get into a drawing. Needs matplotlib.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean, median, quantiles

from fedpress.server.spread import spread, tenth
from fedpress.simulations import units
from fedpress.simulations.drawing import A, B, C, canvas, percent_axis, to_svg, whole_axis
from fedpress.simulations.plots import Key, Plot
from fedpress.simulations.records import latest, on_clients, own, stale
from fedpress.simulations.results import Result


def client_plots(result: Result) -> list[Plot]:
    """Those that the run has numbers for, in the page's order."""
    drawn = (by_round(result), across(result), staleness(result))
    return [plot for plot in drawn if plot is not None]


def by_round(result: Result) -> Plot | None:
    """Clients' accuracies on their own held-out data over the rounds: mean, deviation, worst tenth."""
    found = own(result.rounds, result.summary.clients)
    if len(found) < 2:
        return None
    rounds, spreads = list(found), list(found.values())
    low = [max(0.0, s.mean - s.deviation) for s in spreads]
    high = [min(1.0, s.mean + s.deviation) for s in spreads]
    figure, (axes,) = canvas()
    axes.set_xlabel("round")
    axes.fill_between(rounds, low, high, color=C, alpha=0.16, linewidth=0)
    axes.plot(rounds, [s.worst_decile for s in spreads], color=B)
    axes.plot(rounds, [s.mean for s in spreads], color=A)
    kept = [at for at in rounds[:-1] if at == result.summary.best_round and on_clients(result.rounds)]
    axes.plot(kept, [found[at].mean for at in kept], "o", color=A, markersize=4.5, markeredgewidth=0)
    percent_axis(axes)
    whole_axis(axes)
    first, last = spreads[0], spreads[-1]
    alt = f"Accuracy on clients' own data against round: mean {units.share(first.mean)} to {units.share(last.mean)}, "
    alt += f"worst tenth {units.share(first.worst_decile)} to {units.share(last.worst_decile)}."
    keys = (
        Key("a", "line", "mean of clients"),
        Key("c", "fill", "a standard deviation"),
        Key("b", "line", "worst tenth"),
        *(Key("a", "dot", f"best, in round {at}") for at in kept),
    )
    least, most = min(s.clients for s in spreads), max(s.clients for s in spreads)
    note = f"Of the {least} to {most} clients that measured it." if least < most else ""
    return Plot("own", "Accuracy on clients' own data", to_svg(figure, "ow"), alt, keys, note)


def across(result: Result) -> Plot | None:
    """Accuracy of each client on its own held-out data, sorted, over the number of its examples; the worst tenth
    apart."""
    measured = {name: c.metrics["accuracy"] for name, c in latest(result.rounds).items() if "accuracy" in c.metrics}
    over = spread(measured.values())
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


def staleness(result: Result) -> Plot | None:
    """How many updates were how many versions late; None where none was."""
    if not stale(result.rounds):
        return None
    late = [versions for r in result.rounds if not r.evaluation for versions in r.staleness]
    counts = sorted(Counter(late).items())
    figure, (axes,) = canvas()
    axes.set_xlabel("versions that an update was late")
    axes.bar([n for n, _ in counts], [100 * count / len(late) for _, count in counts], width=0.8, color=A)
    axes.yaxis.set_major_formatter("{x:g} %")
    whole_axis(axes)
    fresh = units.share(late.count(0) / len(late))
    note = f"{fresh} of {len(late)} updates were of the newest version; mean {fmean(late):.1f}, at most {max(late)}."
    return Plot("staleness", "Staleness of updates", to_svg(figure, "st"), note, (), note)
