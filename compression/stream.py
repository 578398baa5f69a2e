"""Counter-based random numbers that are the same everywhere: SplitMix64 (Steele, Lea, Flood 2014) over a counter.

NumPy's generators may change a distribution between versions and have no twin in C, Kotlin or Swift. This one is three
lines of 64-bit integer arithmetic: element ``i`` of a stream with key ``k`` is ``mix(k + (i + 1) * GOLDEN)``, where
``mix`` is SplitMix64's finaliser. Not for privacy noise: it is not cryptographic.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.native import kernels


class Stream:
    """A stream of random numbers under a 64-bit key. The only mutable thing is the position in it."""

    def __init__(self, key: int, at: int = 0) -> None:
        self._key = key & 0xFFFFFFFFFFFFFFFF
        self._at = at

    @classmethod
    def of(cls, *labels: int | str) -> Stream:
        """A stream keyed by labels: independent streams for independent purposes from one seed."""
        digest = hashlib.sha256("\x1f".join(str(label) for label in labels).encode()).digest()
        return cls(int.from_bytes(digest[:8], "little"))

    def u64(self, n: int) -> NDArray[np.uint64]:
        """The next ``n`` numbers, uint64[n]."""
        out = np.empty(n, np.uint64)
        kernels.numbers(self._key, self._at, out)
        self._at += n
        return out

    def uniform(self, n: int) -> NDArray[np.float32]:
        """The next ``n`` numbers uniform in [0, 1), float32[n]: the top 24 bits, so that every value is exact."""
        out = np.empty(n, np.float32)
        kernels.uniform(self._key, self._at, out)
        self._at += n
        return out

    def seed(self) -> int:
        """One 63-bit integer, for a generator of another library."""
        return int(self.u64(1)[0] >> np.uint64(1))
