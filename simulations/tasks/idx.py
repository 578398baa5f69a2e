"""IDX, the format of MNIST and of its drop-in replacements: big-endian header, then unsigned bytes, gzipped."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import DataError
from fedpress.task import Data, Split

_UBYTE = 0x08


def read(path: Path) -> NDArray[np.uint8]:
    """One gzipped IDX file of unsigned bytes, in the shape its header names. Raises DataError."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Expected a gzipped IDX file at '{path}': {error}.") from error
    rank = raw[3] if len(raw) >= 4 else 0
    shape = tuple(np.frombuffer(raw[4 : 4 + 4 * rank], ">u4").tolist())
    start = 4 + 4 * rank
    if raw[:3] != bytes((0, 0, _UBYTE)) or len(shape) != rank or len(raw) != start + prod(shape):
        raise DataError(f"Expected an IDX file of unsigned bytes at '{path}', got the header {raw[:start][:20]!r}.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def images(folder: Path) -> Data:
    """The four files of MNIST's layout: x float32[n, 1, 28, 28] in [0, 1], y int64[n]. Raises DataError."""

    def split(name: str) -> Split:
        pixels = read(folder / f"{name}-images-idx3-ubyte.gz")[:, None].astype(np.float32)
        pixels /= 255
        return Split(pixels, read(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64))

    return Data(split("train"), split("t10k"))
