"""Where privacy noise comes from: the operating system's cryptographic source, unless an experiment passes a stream.

Opacus' own secure mode needs a package (torchcsprng) that current torch has none of, so the Gaussian is drawn here: Box
and Muller (1958) on 53-bit uniforms in float64. Each value is the scaled sum of four such draws, which is Gaussian
again and keeps the low bits of a single floating-point draw from giving the noise away (Mironov 2012; the
countermeasure is that of Holohan and Braghin 2021, section 5.1, with n = 2, as in Opacus' secure mode).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stream import Stream

_DRAWS = 4
#: Values that are drawn at a time: what stays in the processor's cache takes half as long.
_BLOCK = 1024


class Noise:
    """Uniform and Gaussian numbers from a source of uniform 64-bit words."""

    def __init__(self, words: Callable[[int], NDArray[np.uint64]]) -> None:
        self._words = words

    @classmethod
    def secret(cls) -> Noise:
        """From the operating system: nobody can foresee it, and it does not repeat."""
        return cls(lambda n: np.frombuffer(os.urandom(8 * n), np.uint64))

    @classmethod
    def seeded(cls, stream: Stream) -> Noise:
        """From a stream that repeats. It protects nobody: for tests and simulations."""
        return cls(stream.u64)

    def words(self, n: int) -> NDArray[np.uint64]:
        """Uniform 64-bit words, uint64[n]. Read-only where the source's are."""
        return self._words(n)

    def below(self, bound: int, n: int) -> NDArray[np.int64]:
        """Uniform integers in [0, bound), int64[n], without bias: words past the last multiple of ``bound`` are drawn
        again. 0 < bound <= 2^63."""
        last = np.uint64(2**64 - 2**64 % bound - 1)
        words = self._words(n)
        while (past := words > last).any():
            words = words.copy()
            words[past] = self._words(int(past.sum()))
        return (words - words // np.uint64(bound) * np.uint64(bound)).astype(np.int64)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Uniform in [0, 1), float64[n], multiples of 2^-53."""
        return (self._words(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def gaussian(self, n: int, std: float) -> NDArray[np.float64]:
        """Normal with mean 0 and standard deviation ``std``, float64[n]."""
        found = np.empty(n)
        for at in range(0, n, _BLOCK):
            block = found[at : at + _BLOCK]
            pairs = _DRAWS * ((len(block) + 1) // 2)
            radius = np.sqrt(-2.0 * np.log1p(-self.uniform(pairs)))
            angle = 2.0 * np.pi * self.uniform(pairs)
            draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(_DRAWS, -1)
            block[:] = draws.sum(axis=0)[: len(block)]
        found *= std / np.sqrt(_DRAWS)
        return found
