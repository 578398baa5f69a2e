"""Heart disease or none, from 13 clinical measurements at four hospitals (UCI; Janosi, Steinbrunn, Pfisterer, Detrano).

920 patients; a fifth of each hospital's ill and well ones is for the test. Hospitals differ in how many are ill (36 to
94 %) and in what they measured. Missing values become the median; a cholesterol of 0, which stands for all 123 Swiss
patients and 49 of Long Beach's, counts as missing. Medians and scales are of all training rows together: in a real
federation the hospitals would have to agree on them first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from fedpress.simulations.data import ensure
from fedpress.simulations.tasks.splits import spread
from fedpress.task import Data, Split

HOSPITALS: Final = ("cleveland", "hungarian", "switzerland", "va")
_CHOLESTEROL: Final = 4


def data(directory: Path) -> Data:
    """x float32[n, 13], zero mean and unit variance over the training rows, y int64[n] in 0, 1, owner: the hospital."""
    folder = ensure("heart", directory)
    tables = [_rows(folder / f"processed.{hospital}.data") for hospital in HOSPITALS]
    owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    rows = np.concatenate(tables)
    x, y = rows[:, :-1], (rows[:, -1] > 0).astype(np.int64)
    x[x[:, _CHOLESTEROL] == 0, _CHOLESTEROL] = np.nan
    test = spread(2 * owner + y, 0.2)
    x = np.where(np.isnan(x), np.nanmedian(x[~test], axis=0), x)
    x = (x - x[~test].mean(0)) / x[~test].std(0)
    everything = Split(x.astype(np.float32), y, owner)
    return Data(everything.take(~test), everything.take(test), HOSPITALS)


def model() -> Any:
    """13-16-2 with ReLU: 258 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(13, 16, 2)


def student() -> Any:
    """Logistic regression: 28 parameters."""
    from fedpress.simulations.tasks.networks import mlp

    return mlp(13, 2)


def _rows(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """UCI's 14 columns, the diagnosis (0 to 4) last, ``?`` as NaN. float64[n, 14]."""
    return np.genfromtxt(path, delimiter=",", missing_values="?", filling_values=np.nan)
