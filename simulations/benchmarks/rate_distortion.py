"""The fewest bits that any memoryless coding of given numbers needs at a given squared error (Blahut 1972, "Computation
of Channel Capacity and Rate-Distortion Functions"; Arimoto 1972).

For every slope s > 0 and every distribution q of what is decoded,

    R(D) >= -sum_i p_i log2 sum_j q_j exp(-s (x_i - y_j)^2) - log2 max_j c_j - s D log2 e,
    c_j = sum_i p_i exp(-s (x_i - y_j)^2) / sum_k q_k exp(-s (x_i - y_k)^2):

a straight line under the rate-distortion function. Multiplying q by c, over and over, raises the line until it touches;
every fourth time by c**8, which gets there sooner and is allowed because the line holds for any q. The bound is the
highest of the lines of many slopes, so that it is a bound even where the iteration stopped early.

Numbers go into a histogram of about a quarter of the error's width near zero, wider in the tails, each cell at its
mean; the error within cells, which is then left out, is added again. *Memoryless*: a coder that looks at neighbours can
do with less. Where the error is so small that cells would be too many, Shannon's lower bound takes over, which is tight
there: of the numbers that are not zero (a share m with differential entropy h), m (h - log2(2 pi e D / m) / 2), as if
it were known for free which those are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SLOPE_RATIO: Final = 1.15
#: Relative distortions between which slopes are tried; below, Shannon's lower bound.
_FINEST, _COARSEST = 2.0**-9, 2.0**8
_CELLS_PER_WIDTH: Final = 4
_WIDEST: Final = 0.1
#: Magnitudes, in root mean squares, up to which cells are of about the same width.
_CORE: Final = 2.0
_EXPONENTS: Final = (1, 1, 1, 8)
#: Effort per slope, in products of a cell with a cell; few cells converge as slowly as many.
_PRODUCTS: Final = 3e7
_CLOSE: Final = 2e-5  # bits that a line may end below where it would touch


class Line(NamedTuple):
    """``rate >= height - fall * distortion``."""

    height: float
    fall: float


@dataclass(frozen=True)
class Bound:
    """The bound of one distribution, of which the share ``mass`` is not zero and has differential entropy ``entropy``
    (bits, of the numbers over their root mean square)."""

    lines: tuple[Line, ...]
    mass: float
    entropy: float

    def bits(self, nmse: float) -> float:
        """Fewest bits per number at a squared error of ``nmse`` times the mean square (> 0)."""
        shannon = self.mass * (self.entropy - 0.5 * math.log2(2 * math.pi * math.e * nmse / self.mass))
        return max(0.0, shannon, *(line.height - line.fall * nmse for line in self.lines))


class _Cells(NamedTuple):
    """A histogram: means, shares, and the mean square error of putting every number at its cell's mean."""

    means: NDArray[np.float64]
    shares: NDArray[np.float64]
    within: float


def bound(numbers: NDArray[np.float32]) -> Bound:
    """The bound for ``numbers``, float32[n], not all of them zero, when divided by their root mean square."""
    x = np.sort(numbers.astype(np.float64) / math.sqrt(float(np.mean(np.square(numbers, dtype=np.float64)))))
    fine = _merged(_Cells(x, np.full(x.size, 1 / x.size), 0.0), math.sqrt(_FINEST / 2) / _CELLS_PER_WIDTH)
    lines = []
    error = _COARSEST
    while error > _FINEST / 2:
        lines.append(_line(fine, 0.5 / error))
        error /= _SLOPE_RATIO
    x = x[x != 0]
    return Bound(tuple(lines), x.size / numbers.size, _entropy(x))


def _line(fine: _Cells, slope: float) -> Line:
    """The highest line of this slope that so many steps give."""
    means, shares, within = _merged(fine, min(_WIDEST, math.sqrt(0.5 / slope) / _CELLS_PER_WIDTH))
    near = np.exp(-slope * np.square(means[:, None] - means[None, :]))
    q = shares.copy()
    height = -math.inf
    for step in range(int(_PRODUCTS / means.size**2)):
        reach = near @ q
        c = near.T @ (shares / reach)
        touched = -float(shares @ np.log2(reach))
        missing = math.log2(float(c.max()))
        height = max(height, touched - missing)
        if missing < _CLOSE:
            break
        q *= c ** _EXPONENTS[step % len(_EXPONENTS)]
        q /= q.sum()
    fall = slope * math.log2(math.e)
    return Line(height + fall * within, fall)


def _merged(cells: _Cells, width: float) -> _Cells:
    """Sorted cells put together into cells of about ``width``, wider beyond the core."""
    places = np.floor(np.arcsinh(cells.means / _CORE) * (_CORE / width) + 0.5)
    starts = np.flatnonzero(np.diff(places, prepend=-math.inf))
    shares = np.add.reduceat(cells.shares, starts)
    means = np.add.reduceat(cells.shares * cells.means, starts) / shares
    lost = float(cells.shares @ np.square(cells.means) - shares @ np.square(means))
    return _Cells(means, shares, cells.within + max(0.0, lost))


def _entropy(x: NDArray[np.float64]) -> float:
    """Differential entropy of sorted ``x`` in bits, by spacings (Vasicek 1976); -inf where numbers repeat too often."""
    m = max(1, round(math.sqrt(x.size) / 2))
    at = np.arange(x.size)
    spacing = x[np.minimum(at + m, x.size - 1)] - x[np.maximum(at - m, 0)]
    with np.errstate(divide="ignore"):
        return float(np.mean(np.log2(x.size / (2 * m) * spacing)))
