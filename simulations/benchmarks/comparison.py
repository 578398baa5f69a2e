"""Runs of one task beside the uncompressed ones of the same seeds.

Accuracy is the server's, on held-out data, after the last round. Bits per parameter are those of the mean update and of
the mean model download: by payload bytes, and by whole messages as gRPC would carry them (HTTP/2's own framing aside).
The *target* is the uncompressed run's final accuracy less one point. It is reached in the first round whose accuracy,
averaged with the two before, is no lower; the ratio to it is between payload bytes sent until then, and stands beside
the rounds that it took: fewer bytes in more rounds are energy on a phone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from rich.markup import escape
from rich.table import Table

from fedpress.simulations import units
from fedpress.simulations.records import curve
from fedpress.simulations.results import Result

_LOSS: Final = 0.01
_SMOOTH: Final = 3


@dataclass(frozen=True)
class Line:
    """An arm on a task, over its seeds. ``ratio``: of the uncompressed runs' bytes to its own.

    ``reached``: by how many seeds the target was; ``ratio_to_target`` is over those, 0 if there are none, and so is
    ``rounds_to_target``, its rounds over the uncompressed runs'.
    """

    task: str
    arm: str
    accuracies: Sequence[float]
    loss: float
    bits_up: float
    bits_down: float
    message_bits_up: float
    message_bits_down: float
    ratio: float
    message_ratio: float
    reached: int
    ratio_to_target: float
    rounds_to_target: float


def compare(task: str, arm: str, theirs: Sequence[Result], ours: Sequence[Result]) -> Line:
    """An arm's runs (``ours``) beside the uncompressed ones (``theirs``), seed by seed."""
    accuracies = [_accuracy(run) for run in ours]
    pairs = [
        (there, here)
        for a, b in zip(theirs, ours, strict=True)
        if (there := reached(a, _accuracy(a) - _LOSS)) and (here := reached(b, _accuracy(a) - _LOSS))
    ]
    return Line(
        task=task,
        arm=arm,
        accuracies=accuracies,
        loss=statistics.mean(map(_accuracy, theirs)) - statistics.mean(accuracies),
        bits_up=_bits(ours, "bytes", "up"),
        bits_down=_bits(ours, "bytes", "down"),
        message_bits_up=_bits(ours, "wire", "up"),
        message_bits_down=_bits(ours, "wire", "down"),
        ratio=_both(theirs, "bytes") / _both(ours, "bytes"),
        message_ratio=_both(theirs, "wire") / _both(ours, "wire"),
        reached=len(pairs),
        ratio_to_target=_quotient([there.sent for there, _ in pairs], [here.sent for _, here in pairs]),
        rounds_to_target=_quotient([here.round for _, here in pairs], [there.round for there, _ in pairs]),
    )


def mean_curve(results: Sequence[Result]) -> list[tuple[float, float]]:
    """(bytes sent so far in both directions, accuracy) after each round, means over the runs."""
    together = zip(*(_by_bytes(result) for result in results), strict=True)
    return [(statistics.mean(n for n, _ in at), statistics.mean(value for _, value in at)) for at in together]


def table(lines: Sequence[Line]) -> Table:
    """Lines side by side."""
    out = Table("task", "arm")
    names = ("accuracy", "loss,\npoints", "bits up", "with\nmessages", "bits\ndown", "with\nmessages")
    for name in (*names, "total\ntraffic", "with\nmessages", "to within\n1 point", "in rounds\nof its"):
        out.add_column(name, justify="right")
    for line in lines:
        some = f" ({line.reached} of {len(line.accuracies)})" if line.reached < len(line.accuracies) else ""
        bits = (line.bits_up, line.message_bits_up, line.bits_down, line.message_bits_down)
        ratios = [units.ratio(ratio, 1) for ratio in (line.ratio, line.message_ratio, line.ratio_to_target)]
        accuracy = [units.share(statistics.mean(line.accuracies)), f"{100 * line.loss:.2f}"]
        rounds = units.ratio(line.rounds_to_target, 1)
        cells = [*accuracy, *(f"{value:.3g}" for value in bits), *ratios[:2], ratios[2] + some, rounds]
        out.add_row(escape(line.task), escape(line.arm), *cells)
    return out


def _accuracy(result: Result) -> float:
    return result.summary.accuracy or 0.0


def _by_bytes(result: Result) -> list[tuple[int, float]]:
    """Payload bytes sent so far, and accuracy, after each round."""
    sent = _sent(result)
    return [(sent[number], value) for number, value in curve(result.rounds) if sent.get(number)]


def _sent(result: Result) -> dict[int, int]:
    """Payload bytes sent until each round was over, by round."""
    sums = accumulate(r.bytes_up + r.bytes_down for r in result.rounds)
    return dict(zip((r.round for r in result.rounds), sums, strict=True))


class Reached(NamedTuple):
    """When a value was: the round, the payload bytes sent until then, the seconds into the run."""

    round: int
    sent: int
    seconds: float


def reached(result: Result, target: float, metric: str = "accuracy") -> Reached | None:
    """When the metric, averaged with the two before, was first no lower than ``target``; None if it never was."""
    sent = _sent(result)
    elapsed = {r.round: r.elapsed for r in result.rounds}
    points = [(number, value) for number, value in curve(result.rounds, metric) if sent.get(number)]
    for end in range(_SMOOTH, len(points) + 1):
        if statistics.mean(value for _, value in points[end - _SMOOTH : end]) >= target:
            number = points[end - 1][0]
            return Reached(number, sent[number], elapsed[number])
    return None


def _quotient(above: Sequence[int], below: Sequence[int]) -> float:
    """The sum of one over that of the other; 0 of nothing."""
    return sum(above) / sum(below) if sum(below) else 0.0


def _bits(results: Sequence[Result], what: str, way: str) -> float:
    """Bits per parameter: 32 for every four bytes that uncompressed FedAvg would have sent."""
    full = sum(getattr(r.summary, f"bytes_{way}_uncompressed") for r in results)
    return 32 * sum(getattr(r.summary, f"{what}_{way}") for r in results) / full if full else 0.0


def _both(results: Sequence[Result], what: str) -> int:
    """Bytes of all runs in both directions."""
    return sum(getattr(r.summary, f"{what}_{way}") for r in results for way in ("up", "down"))
