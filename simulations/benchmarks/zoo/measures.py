"""What a cell's runs lose beside uncompressed ones of the same seeds, and what each half comes to.

*Points* are of accuracy or of R2, both in percent. A run's value at the end is the mean of its last three rounds, and
in mid-run of the three around a third of its rounds, to damp the noise of single rounds. A round in which the model is
worse than the one before round 1 (than the mean of the targets, where that is better: R2 = 0), or has no value because
it diverged, counts as that model: nobody can lose more than all that was learnt.

The *target* is the uncompressed run's value at the end less one point. It is reached in the first round whose value,
averaged with the two before, is no lower. *Noise* is the standard error that the loss would have if the arms differed
by chance alone: of the uncompressed runs' standard deviation over seeds, sqrt(2 / seeds) times. An arm *learns nothing*
with less than half of what the uncompressed runs gain over round 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fedpress.simulations.benchmarks.comparison import Reached, reached
from fedpress.simulations.records import curve
from fedpress.simulations.results import Result

_POINT: Final = 0.01
_WINDOW: Final = 3
_NOTHING: Final = 0.5
_R2: Final = "r2"
#: The least share of the variance that an error is taken to be.
_EXACT: Final = 1e-9


@dataclass(frozen=True)
class Line:
    """An arm in a cell of a half (for ``--strategies``: with a strategy in a cell), in the mean over its seeds.

    ``raw``: what uncompressed runs come to at the end, as a share, and ``values`` the arm's own, by seed. ``loss``,
    ``loss_mid``: points that uncompressed runs of the same seeds are ahead at the end and in mid-run, and ``noise``
    (see above; 0 for one seed). ``gain_lost``: the loss at the end over all that they gained, ``gain_lost_mid`` the
    same in mid-run. ``more_error``: by how much the mean squared error is larger, as a share of theirs; None: no
    regression. ``ratio``: of their bytes to this arm's, payloads both ways; 1 where nothing is sent. ``reached``: by
    how many seeds the target was; ``rounds`` (as a multiple of theirs) and ``ratio_to_target`` are over those; None:
    none. ``nothing``: the arm learns nothing.
    """

    cell: str
    half: str
    arm: str
    parameters: int
    raw: float
    values: Sequence[float]
    loss: float
    loss_mid: float
    noise: float
    gain_lost: float
    gain_lost_mid: float
    more_error: float | None
    ratio: float
    reached: int
    rounds: float | None
    ratio_to_target: float | None
    nothing: bool

    @property
    def behind(self) -> bool:
        """The loss is more than a point beyond noise."""
        return self.loss > 1 + self.noise


@dataclass(frozen=True)
class Total:
    """An arm in all cells of a half. ``ratio``: the mean over cells, ``geometric_ratio`` the geometric one; ``rounds``:
    the geometric mean over cells where the target was reached by any seed (None: nowhere), ``missed`` the others.
    ``more_error``: the worst of regressions."""

    half: str
    arm: str
    cells: int
    loss: float
    worst: float
    worst_cell: str
    loss_mid: float
    worst_mid: float
    more_error: float | None
    ratio: float
    geometric_ratio: float
    rounds: float | None
    missed: int
    nothing: int
    behind: int


def compare(half: str, cell: str, arm: str, metric: str, theirs: Sequence[Result], ours: Sequence[Result]) -> Line:
    """An arm's runs (``ours``) beside the uncompressed ones (``theirs``) by a metric, seed by seed."""
    before = statistics.mean(_before(run, metric) for run in theirs)
    rounds = [run.summary.rounds for run in theirs]
    curves = [by_round(run, metric, count) for run, count in zip(theirs, rounds, strict=True)]
    ours_curves = [by_round(run, metric, count) for run, count in zip(ours, rounds, strict=True)]
    raw, values = [end(one) for one in curves], [end(one) for one in ours_curves]
    raw_mid, values_mid = [middle(one) for one in curves], [middle(one) for one in ours_curves]
    loss = statistics.mean(raw) - statistics.mean(values)
    loss_mid = statistics.mean(raw_mid) - statistics.mean(values_mid)
    gain = statistics.mean(raw) - before
    gain_mid = statistics.mean(raw_mid) - before
    targets = [value - _POINT for value in raw]
    pairs = [
        (reached(a, target, metric), reached(b, target, metric))
        for a, b, target in zip(theirs, ours, targets, strict=True)
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    deviation = statistics.stdev(raw) if len(raw) > 1 else 0.0
    return Line(
        cell=cell,
        half=half,
        arm=arm,
        parameters=ours[0].summary.parameters,
        raw=statistics.mean(raw),
        values=values,
        loss=100 * loss,
        loss_mid=100 * loss_mid,
        noise=100 * deviation * math.sqrt(2 / len(raw)),
        gain_lost=loss / gain if gain > 0 else 0.0,
        gain_lost_mid=loss_mid / gain_mid if gain_mid > 0 else 0.0,
        more_error=loss / max(1 - statistics.mean(raw), _EXACT) if metric == _R2 else None,
        ratio=_bytes(theirs) / _bytes(ours) if _bytes(ours) else 1.0,
        reached=len(both),
        rounds=_ratio(both, lambda a, b: (b.round, a.round)),
        ratio_to_target=_ratio(both, lambda a, b: (a.sent, b.sent)),
        nothing=statistics.mean(values) - before < _NOTHING * gain,
    )


def total(lines: Sequence[Line]) -> Total:
    """The sum of one arm's lines in one half."""
    worst = max(lines, key=lambda line: line.loss)
    rounds = [line.rounds for line in lines if line.rounds]
    errors = [line.more_error for line in lines if line.more_error is not None]
    return Total(
        half=worst.half,
        arm=worst.arm,
        cells=len(lines),
        loss=statistics.mean(line.loss for line in lines),
        worst=worst.loss,
        worst_cell=worst.cell,
        loss_mid=statistics.mean(line.loss_mid for line in lines),
        worst_mid=max(line.loss_mid for line in lines),
        more_error=max(errors, default=None),
        ratio=statistics.mean(line.ratio for line in lines),
        geometric_ratio=statistics.geometric_mean(line.ratio for line in lines),
        rounds=statistics.geometric_mean(rounds) if rounds else None,
        missed=len(lines) - len(rounds),
        nothing=sum(line.nothing for line in lines),
        behind=sum(line.behind for line in lines),
    )


def totals(lines: Sequence[Line]) -> list[Total]:
    """A total for each half and arm, in the lines' order."""
    groups = dict.fromkeys((line.half, line.arm) for line in lines)
    return [total([line for line in lines if (line.half, line.arm) == group]) for group in groups]


def end(values: Sequence[float]) -> float:
    """The mean of the last three of a run's values, by round from 0."""
    return statistics.mean(values[max(1, len(values) - _WINDOW) :])


def middle(values: Sequence[float]) -> float:
    """The mean of the three values around a third of the rounds."""
    third = max(1, round((len(values) - 1) / 3))
    return statistics.mean(values[max(1, third - 1) : third + 2])


def by_round(run: Result, metric: str, rounds: int) -> list[float]:
    """A run's values from round 0 to ``rounds``, each at least what it had before; of rounds without a value, that."""
    found = dict(curve(run.rounds, metric))
    before = _before(run, metric)
    return [max(found.get(number, before), before) for number in range(rounds + 1)]


def _before(run: Result, metric: str) -> float:
    """What the initial model, or for R2 the targets' mean, is worth."""
    value = dict(curve(run.rounds, metric)).get(0, 0.0)
    return max(value, 0.0)


def _bytes(runs: Sequence[Result]) -> int:
    return sum(run.summary.bytes_up + run.summary.bytes_down for run in runs)


def _ratio(
    both: Sequence[tuple[Reached, Reached]], parts: Callable[[Reached, Reached], tuple[int, int]]
) -> float | None:
    """The sum of the first parts over the sum of the second ones; None for no pairs."""
    found = [parts(theirs, ours) for theirs, ours in both]
    return sum(over for over, _ in found) / sum(under for _, under in found) if found else None
