"""Random-k: k coordinates drawn from the seed that both ends share; no index travels (Konečný et al. 2016, "random
mask").

The coordinates are the first k distinct numbers of ``Stream.of("randomk", seed)``, each taken modulo n: any language
draws them in ten lines. Above a density of one half the coordinates left out are drawn instead. With the same seed on
all devices the values may be summed before decoding, which is what secure aggregation needs.

With ``block`` above 1 whole runs of so many neighbours are drawn instead, n being the number of runs: a twentieth of
the time, since little is drawn and memory is read in runs, at the price of an error that depends on how alike
neighbours are. The last run is filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import VALUES, Sparse, largest_values, squared_norm
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Array, Spec, Tensors, flatten, unflatten

_LONGEST: Final = 65536


@dataclass(frozen=True)
class RandomK(Sparse):
    """A random share ``density`` of runs of ``block``, by the shared seed; ``unbiased`` scales what is sent by n/k."""

    unbiased: bool = True
    block: int = 1
    id: ClassVar[str] = "randomk"
    commutes_with_sum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.block <= _LONGEST:
            raise CodecError(f"Expected a block from 1 to {_LONGEST}, got {self.block} (randomk.block).")

    @property
    def block_size(self) -> int:
        """``block``."""
        return self.block

    @property
    def keeps(self) -> float:
        """The share that is sent, in the mean, unless it is scaled up."""
        return -1.0 if self.unbiased else self.density

    def kept(self, size: int) -> int:
        """The numbers sent: those of so many runs; the last run may be filled up."""
        return super().kept(self._runs(size)) * self._run(size)

    def share(self, size: int) -> float:
        """Of the runs."""
        return super().kept(self._runs(size)) / self._runs(size) if size else 1.0

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: nothing. Rest: the values, in index order."""
        vector = flatten(tensors)
        if spare := self._runs(vector.size) * self._run(vector.size) - vector.size:
            vector = np.pad(vector, (0, spare))
        runs = vector.reshape(-1, self._run(vector.size))
        values = runs[draw(context.seed, super().kept(len(runs)), len(runs))].reshape(-1)
        return Wire(b"", {VALUES: self._scaled(values, vector.size)}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Zeros where nothing was sent. Raises DecodeError."""
        if len(wire.side):
            raise DecodeError(f"Expected no bytes beside the values of random-k, got {len(wire.side)}.")
        runs = np.zeros((self._runs(spec.size), self._run(spec.size)), np.float32)
        runs[draw(context.seed, super().kept(len(runs)), len(runs))] = wire.rest[VALUES].reshape(-1, runs.shape[1])
        return unflatten(runs.reshape(-1)[: spec.size], spec), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """The largest values, scaled: no seed draws larger ones."""
        size = Spec.of(tensors).size
        values = np.zeros(self.kept(size), np.float32)
        top = largest_values(tensors, min(size, values.size))
        values[: top.size] = top
        return {VALUES: self._scaled(values, self._runs(size) * self._run(size))}

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean over seeds: (n/k - 1) times the squared norm if unbiased, else (1 - k/n)."""
        share = self.share(Spec.of(tensors).size)
        return (1 / share - 1 if self.unbiased else 1 - share) * squared_norm(tensors)

    def max_bytes(self, spec: Spec) -> int:  # noqa: ARG002
        """No bytes beside the values."""
        return 0

    def _run(self, size: int) -> int:
        return max(1, min(self.block, size))

    def _runs(self, size: int) -> int:
        return -(-size // self._run(size))

    def _scaled(self, values: Array, size: int) -> Array:
        return values * np.float32(size / max(1, values.size)) if self.unbiased else values


def draw(seed: int, k: int, n: int) -> NDArray[np.int64]:
    """``k`` distinct indices below ``n``, increasing, the same for the same ``seed`` everywhere. int64[k]."""
    if 2 * k > n:
        left_out = np.ones(n, bool)
        left_out[draw(seed, n - k, n)] = False
        return np.flatnonzero(left_out)
    if not k:
        return np.zeros(0, np.int64)
    draws = k + k // 2 + 16
    while True:
        numbers = (Stream.of("randomk", seed).u64(draws) % np.uint64(n)).astype(np.int64)
        distinct, first = np.unique(numbers, return_index=True)
        if distinct.size >= k:
            return np.sort(distinct[np.argsort(first)[:k]])
        draws *= 2
