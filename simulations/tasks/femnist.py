"""Handwritten digits and letters by who wrote them: 105 writers of FEMNIST (LEAF, Caldas et al. 2018; NIST SD19).

62 classes (0-9, A-Z, a-z), LEAF's own 90/10 split of each writer: 14 708 and 1 685 images. These writers are those
whose rows are complete in a copy of LEAF's 5 % sample; 72 % of their images are digits, so figures do not compare with
those of all 3 550 writers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedpress.simulations.data import ensure
from fedpress.task import Data, Split


def data(directory: Path) -> Data:
    """x float32[n, 1, 28, 28] in [0, 1] with ink = 1 (the file has paper = 255), y int64[n], owner: the writer."""
    with np.load(ensure("femnist", directory) / "femnist_105writers.npz") as file:
        ink = (255 - file["X"][:, None]).astype(np.float32) / 255
        everything = Split(ink, file["y"].astype(np.int64), file["writer"].astype(np.int64))
        test, writers = file["split"] == 1, tuple(file["writer_ids"].tolist())
    return Data(everything.take(~test), everything.take(test), writers)


def model() -> Any:
    """Two convolutions and two linear layers: 214 k parameters."""
    from fedpress.simulations.tasks.networks import cnn

    return cnn(channels=(16, 32), hidden=128, classes=62)


def student() -> Any:
    """The same, thinner: 29 k parameters."""
    from fedpress.simulations.tasks.networks import cnn

    return cnn(channels=(8, 16), hidden=32, classes=62)
