"""Pictures: parts of mnist, fashion-mnist and femnist, and drawn ones in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.simulations.data import ensure
from fedpress.simulations.tasks import femnist, idx
from fedpress.task import Data, Split

Image = NDArray[np.float32]

SIDE: Final = 32
CLASSES: Final = 10


def mnist(directory: Path, scale: float = 1.0) -> Data:
    """3000 and 1000 of MNIST: x float32[n, 1, 28, 28] in [0, scale], y int64[n]. Raises DataError."""
    return _part(ensure("mnist", directory), scale)


def fashion(directory: Path, scale: float = 1.0) -> Data:
    """3000 and 1000 of Fashion-MNIST: x float32[n, 1, 28, 28] in [0, scale], y int64[n]. Raises DataError."""
    return _part(ensure("fashion-mnist", directory), scale)


def writers(directory: Path, count: int = 40) -> Data:
    """The first writers of femnist, with all that they wrote, for training and for the test. Raises DataError."""
    whole = femnist.data(directory)
    train, test = (split.take(split.owner < count) for split in (whole.train, whole.test) if split.owner is not None)
    return Data(train, test, whole.owners[:count])


def colours(noise: float = 1.1) -> Data:
    """4000 and 1000 drawn pictures: x float32[n, 3, 32, 32], roughly zero mean and unit variance, y int64[n] in 0..9.

    A class is one of five textures (the direction and the pitch of waves) with one of two shapes in a light that leans
    to some colour. Where the waves begin, a second wave, the shape's size and place, and most of the light are chance.
    ``noise``: the deviation of the normal noise on top, where waves and shapes have about 0.5.
    """
    rng = np.random.default_rng(6)
    y = rng.integers(CLASSES, size=5000)
    x = np.zeros((len(y), 3, SIDE, SIDE), np.float32)
    down, across = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE
    texture, shape = y % 5, y // 5
    angle = np.pi * texture / 5 + rng.normal(0, 0.12, len(y))
    pitch = 4.0 + 1.2 * (texture % 3) + rng.normal(0, 0.4, len(y))
    x += 0.5 * _hue(rng, y % 3, 0.6) * _waves(rng, angle, pitch, down, across)
    stray = rng.uniform(0, np.pi, len(y)), rng.uniform(2, 8, len(y))
    x += 0.3 * _hue(rng, rng.integers(3, size=len(y)), 0.6) * _waves(rng, *stray, down, across)
    x += 0.9 * _hue(rng, rng.integers(3, size=len(y)), 0.3) * _shapes(rng, shape, down, across)
    light = 0.4 * rng.normal(size=(CLASSES, 3))[y] + 0.3 * rng.normal(size=(len(y), 3))
    x += light.astype(np.float32)[:, :, None, None]
    x += noise * rng.standard_normal(x.shape, np.float32)
    everything, at = Split(x, y.astype(np.int64)), np.arange(len(y))
    return Data(everything.take(at < 4000), everything.take(at >= 4000))


def _part(folder: Path, scale: float) -> Data:
    def split(name: str, count: int) -> Split:
        pixels = idx.read(folder / f"{name}-images-idx3-ubyte.gz")[:count, None].astype(np.float32)
        labels = idx.read(folder / f"{name}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
        return Split(pixels * np.float32(scale / 255), labels)

    return Data(split("train", 3000), split("t10k", 1000))


def _column(values: NDArray[np.float64]) -> Image:
    return values.astype(np.float32)[:, None, None]


def _hue(rng: np.random.Generator, channel: NDArray[np.int64], purity: float) -> Image:
    """Weights of the three colours, one of them more by ``purity``, with chance: float32[n, 3, 1, 1]."""
    weights = rng.uniform(0.3, 1.0, size=(len(channel), 3))
    weights[np.arange(len(channel)), channel] += purity
    return weights.astype(np.float32)[:, :, None, None]


def _waves(
    rng: np.random.Generator, angle: NDArray[np.float64], pitch: NDArray[np.float64], down: Image, across: Image
) -> Image:
    """A plane wave for each picture: float32[n, 1, 32, 32]."""
    along = _column(np.cos(angle)) * across + _column(np.sin(angle)) * down
    phase = 2 * np.pi * _column(pitch) * along + _column(rng.uniform(0, 2 * np.pi, len(angle)))
    waves: Image = np.sin(phase)[:, None]
    return waves


def _shapes(rng: np.random.Generator, shape: NDArray[np.int64], down: Image, across: Image) -> Image:
    """A ring (0) or a disc (1) of some size at some place: float32[n, 1, 32, 32]."""
    y, x, size = (_column(rng.uniform(*ends, len(shape))) for ends in ((0.25, 0.75), (0.25, 0.75), (0.14, 0.24)))
    distance = np.sqrt((down - y) ** 2 + (across - x) ** 2) / size
    ring = (np.abs(distance - 0.85) < 0.25).astype(np.float32)
    disc = (distance < 0.75).astype(np.float32)
    return np.where(_column(shape.astype(np.float64)) > 0, disc, ring)[:, None]
