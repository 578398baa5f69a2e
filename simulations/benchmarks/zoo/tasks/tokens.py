"""Sequences of symbols: topics, order, a Markov chain, ratings of pairs, and a part of Shakespeare."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from fedpress.simulations.tasks import shakespeare
from fedpress.simulations.tasks.shakespeare import ALPHABET
from fedpress.task import Data, Split

#: Words of ``topics``; symbols of ``order`` and of ``chain``; rows and columns of ``ratings``.
WORDS: Final = 2000
SYMBOLS: Final = 16
ROWS, COLUMNS = 400, 300
#: Characters, and a window of them, of ``plays``.
CHARACTERS: Final = len(ALPHABET)
WINDOW: Final = 40
_TEST: Final = 1500


def topics(classes: int = 8, length: int = 24) -> Data:
    """Texts as bags of words by Zipf's law, a third of them by topic: x int64[n, length], y int64[n]."""
    rng = np.random.default_rng(7)
    common = 1 / np.arange(5, WORDS + 5)
    common /= common.sum()
    y = rng.integers(classes, size=5500)
    x = rng.choice(WORDS, size=(len(y), length), p=common)
    for topic in range(classes):
        rows = np.flatnonzero(y == topic)
        own = rng.choice(rng.permutation(WORDS), size=(len(rows), length), p=common)
        x[rows] = np.where(rng.random(own.shape) < 1 / 3, own, x[rows])
    return _cut(x, y)


def order(length: int = 12, classes: int = 4) -> Data:
    """Which of ``classes`` markers comes last, among other symbols: x int64[n, length] in 0..15, y int64[n]."""
    rng = np.random.default_rng(8)
    x = rng.integers(classes, SYMBOLS, size=(4500, length))
    marked = rng.random(x.shape) < 0.35
    marked[np.arange(len(x)), rng.integers(length, size=len(x))] = True
    x = np.where(marked, rng.integers(classes, size=x.shape), x)
    latest = length - 1 - marked[:, ::-1].argmax(1)
    return _cut(x, x[np.arange(len(x)), latest])


def chain(length: int = 16) -> Data:
    """The next symbol of a Markov chain: x int64[n, length] in 0..15, y the same one place on.

    Half of the symbols are drawn by the one before, half by the two before.
    """
    rng = np.random.default_rng(9)
    odds = rng.gamma(0.1, size=(SYMBOLS + 1, SYMBOLS, SYMBOLS)) + 1e-3  # the last table: whatever was two before
    sums = np.cumsum(odds / odds.sum(-1, keepdims=True), axis=-1)
    text = rng.integers(SYMBOLS, size=(3000, length + 1))
    for place in range(2, length + 1):
        before = np.where(rng.random(len(text)) < 0.5, text[:, place - 2], SYMBOLS)
        draw = rng.random((len(text), 1))
        text[:, place] = np.minimum((sums[before, text[:, place - 1]] < draw).sum(1), SYMBOLS - 1)
    return _cut(text[:, :-1], text[:, 1:], test=1000)


def ratings(factors: int = 4) -> Data:
    """Ratings of columns by rows, from a few hidden factors: x int64[n, 2], y float32[n], variance about 1."""
    rng = np.random.default_rng(10)
    of_rows, of_columns = rng.normal(size=(ROWS, factors)), rng.normal(size=(COLUMNS, factors))
    biases = 0.5 * rng.normal(size=ROWS), 0.5 * rng.normal(size=COLUMNS)
    x = np.stack([rng.integers(ROWS, size=18000), rng.integers(COLUMNS, size=18000)], axis=1)
    row, column = x.T
    y = (of_rows[row] * of_columns[column]).sum(1) / np.sqrt(2 * factors) + biases[0][row] + biases[1][column]
    return _cut(x, (y + 0.3 * rng.normal(size=len(y))).astype(np.float32))


def plays(directory: Path, roles: int = 20, windows: int = 50) -> Data:
    """Next characters of the roles who speak first, in windows of 40, at most so many of each: 1000 and about 300.

    x int64[n, 40], y int64[n, 40] the same one character on, owner: the role. Raises DataError.
    """
    whole = shakespeare.data(directory)
    return Data(_short(whole.train, roles, windows), _short(whole.test, roles, windows // 2), whole.owners[:roles])


def _short(split: Split, roles: int, windows: int) -> Split:
    """Windows of 80 in halves, the first ``windows`` of each role."""
    owner = np.repeat(np.asarray(split.owner), 2)
    x, y = split.x.reshape(-1, WINDOW), split.y.reshape(-1, WINDOW)
    index = np.concatenate([np.flatnonzero(owner == role)[:windows] for role in range(roles)])
    return Split(x[index], y[index], owner[index])


def _cut(
    x: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    y: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    test: int = _TEST,
) -> Data:
    """The last ``test`` sequences for the test."""
    everything, at = Split(x, y), np.arange(len(x))
    return Data(everything.take(at < len(x) - test), everything.take(at >= len(x) - test))
