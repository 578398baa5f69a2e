"""Tables: rows of features, drawn or bundled with scikit-learn, standardised or in raw units.

What is drawn is the same everywhere: NumPy's PCG64 with a fixed seed per table.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import MissingExtra
from fedpress.simulations.tasks.splits import spread
from fedpress.task import Data, Split

Rows = NDArray[np.float64]

#: Of the columns of a table in raw units: shares, metres, years, thousands of inhabitants ...
UNITS: Final = np.array([0.01, 0.1, 1.0, 3.0, 10.0, 40.0, 0.02, 0.5, 5.0, 20.0, 70.0, 100.0])
_TEST: Final = 1500


def separable() -> Data:
    """Two classes on either side of a plane: x float32[n, 13] standard normal, y int64[n] in 0, 1."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4500, 13))
    return cut(x, x @ rng.normal(size=13) > 0)


def linear(features: int = 8, noise: float = 0.5) -> Data:
    """A linear function with normal noise: x float32[n, features] standard normal, y float32[n], variance about 1."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4500, features))
    weights = rng.normal(size=features)
    y = x @ weights / np.linalg.norm(weights) + noise * rng.normal(size=len(x))
    return cut(x, y.astype(np.float32))


def friedman() -> Data:
    """Friedman's (1991) first function of 5 of 10 uniform features: x float32[n, 10], y float32[n], standardised."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(4500, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y += rng.normal(size=len(x))
    return cut(2 * x - 1, ((y - 14.4) / 5.0).astype(np.float32))


def houses() -> Data:
    """Prices by eight columns in raw units, in the manner of California's blocks: y float32[n], in 100 000.

    Columns: income (10 000), age (years), rooms, bedrooms, inhabitants, people per house, latitude, longitude.
    """
    rng = np.random.default_rng(4)
    n = 5500
    income = rng.lognormal(1.2, 0.45, n)
    age = rng.uniform(1, 52, n)
    rooms = rng.lognormal(1.6, 0.25, n)
    bedrooms = rooms * rng.normal(0.21, 0.02, n)
    inhabitants = rng.lognormal(7.0, 0.7, n)
    people = rng.lognormal(1.0, 0.2, n)
    north, west = rng.uniform(32.5, 42, n), rng.uniform(-124.3, -114.3, n)
    coast = np.exp(-np.abs(west + 124.3 - 0.9 * (42 - north)) / 1.5)
    price = 0.45 * income + 1.6 * coast * np.sqrt(income) + 0.006 * age - 0.5 * (people - 2.7) + 0.15 * rooms
    price += 0.35 * rng.normal(size=n)
    x = np.stack([income, age, rooms, bedrooms, inhabitants, people, north, west], axis=1)
    return cut(x, price.astype(np.float32))


def clusters(scale: Rows | float = 1.0, shift: Rows | float = 0.0, classes: int = 6, close: float = 1.0) -> Data:
    """Two normal clouds for each class: x float32[n, 12], each column times ``scale`` plus ``shift``, y int64[n].

    ``close``: the clouds' deviation where their centres' is 1.
    """
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(2 * classes, 12))
    cloud = rng.integers(2 * classes, size=4500)
    x = centres[cloud] + close * rng.normal(size=(len(cloud), 12))
    return cut(x * scale + shift, cloud % classes)


def bundled(name: str, share: float, standardised: bool = True) -> Data:
    """A table of scikit-learn's own: ``digits``, ``wine``, ``breast_cancer`` or ``diabetes``. Raises MissingExtra.

    ``share`` of each class (of all rows, for a regression) is for the test. Standardised: over the rows to learn from.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra(f"The table '{name}'", "tasks") from error
    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    x, y = np.asarray(bunch.data, np.float64), bunch.target
    classes = y.dtype.kind in "iu"
    test = spread(y if classes else np.zeros(len(y)), share)
    if standardised:
        x = (x - x[~test].mean(0)) / np.maximum(x[~test].std(0), 1e-6)
    everything = Split(x.astype(np.float32), y.astype(np.int64 if classes else np.float32))
    return Data(everything.take(~test), everything.take(test))


def cut(x: Rows, y: NDArray[Any]) -> Data:
    """The last ``_TEST`` rows for the test; x as float32, and y as int64 unless it is float32."""
    y = y if y.dtype == np.float32 else y.astype(np.int64)
    everything = Split(x.astype(np.float32), y)
    at = np.arange(len(x))
    return Data(everything.take(at < len(x) - _TEST), everything.take(at >= len(x) - _TEST))
