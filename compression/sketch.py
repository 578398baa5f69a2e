"""Count-sketch: a small table of sums, from which the largest parameters are read again (Charikar, Chen, Farach-Colton
2002; Rothchild et al. 2020, "FetchSGD: Communication-Efficient Federated Learning with Sketching").

In each row of the table every parameter has a column and a sign, drawn from the seed that both ends share, and is added
to that cell with that sign. Its value is estimated as the median over the rows of cell times sign; of all estimates the
k largest in magnitude count, the rest become zero. The table is linear: tables of many devices may be added, under
secure aggregation too, and the sum's largest parameters be read, which no top-k per device gives.

Hashes: number i of ``Stream.of("sketch", seed, row)``; its lowest bit is the sign (1: minus), the other 63 modulo the
columns are the column. Cells are sums in float64 in the order of the parameters. Deviation from FetchSGD: momentum and
feedback on the server's side of the table are a strategy's business; there is one table per update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import VALUES, Sparse, largest, scatter, squared_norm
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError
from fedpress.params import Array, Spec, Tensors, TensorSpec, flatten

TABLE: Final = "table"
_MOST_ROWS: Final = 15
#: Parameters hashed at a time, so that memory stays near one vector.
_AT_ONCE: Final = 4096
_HUGE: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Sketch(Sparse):
    """Table of ``rows`` times a share ``columns`` of the parameters; the share ``density`` is read from it."""

    columns: float = 0.02
    rows: int = 5
    id: ClassVar[str] = "sketch"
    commutes_with_sum: ClassVar[bool] = True
    unbiased: ClassVar[bool] = False  #: small parameters never arrive
    #: cells hold more than one parameter; a table too small for the update adds errors larger than it
    keeps: ClassVar[float] = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.columns <= 1:
            raise CodecError(f"Expected 0 < columns <= 1, got {self.columns} (sketch.columns).")
        if not (1 <= self.rows <= _MOST_ROWS and self.rows % 2):
            raise CodecError(f"Expected an odd number of rows up to {_MOST_ROWS}, got {self.rows} (sketch.rows).")

    def rest(self, spec: Spec) -> Spec:
        """One tensor, ``table``, of shape (rows, columns)."""
        return Spec((TensorSpec(TABLE, (self.rows, self._width(spec.size))),))

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: nothing. Rest: the table, its cells cut off at the largest float32."""
        vector = flatten(tensors)
        width = self._width(vector.size)
        table = np.zeros((self.rows, width))
        for at, row, columns, signs in self._hashes(context.seed, vector.size):
            np.add.at(table[row], columns, (vector[at : at + columns.size] * signs).astype(np.float64))
        return Wire(b"", {TABLE: np.clip(table, -_HUGE, _HUGE).astype(np.float32)}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """The largest estimates. Raises DecodeError if there is a side, or NaN in the table."""
        if len(wire.side):
            raise DecodeError(f"Expected no bytes beside the table of 'sketch', got {len(wire.side)}.")
        table = wire.rest[TABLE]
        if not np.all(np.isfinite(table)):
            raise DecodeError("Expected finite numbers in the table of 'sketch'.")
        estimates = np.empty(spec.size, np.float32)
        votes: list[Array] = []
        for at, row, columns, signs in self._hashes(context.seed, spec.size):
            votes.append(table[row][columns] * signs)
            if len(votes) == self.rows:
                estimates[at : at + columns.size] = np.sort(votes, axis=0)[self.rows // 2]
                votes.clear()
        indices = largest(estimates, self.kept(spec.size))
        return scatter(indices, wire._replace(rest={VALUES: estimates[indices]}), spec), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """The j-th largest cell of a row has at most 1/j of the sum of magnitudes.

        Scaled up by the parameters per cell, for an error in a cell reaches them all.
        """
        size = Spec.of(tensors).size
        width = self._width(size)
        total = float(np.sum(np.abs(flatten(tensors)), dtype=np.float64)) * math.sqrt(size / width if size else 1.0)
        row = np.minimum(total / np.arange(1, width + 1), _HUGE).astype(np.float32)
        return {TABLE: np.tile(row, (self.rows, 1))}

    def error_bound(self, tensors: Tensors) -> float:
        """In the mean over seeds: loose, for it lets every parameter be estimated at once.

        A row's estimate has a mean squared error of at most |x|**2 / columns, and a median is off only if more than
        half of the rows are as far off to its side: 2 |x|**2 / columns.
        """
        size = Spec.of(tensors).size
        return squared_norm(tensors) * (1 + 2 * size / self._width(size) if size else 1.0) * (1 + 1e-5)

    def max_bytes(self, spec: Spec) -> int:  # noqa: ARG002
        """No bytes beside the table."""
        return 0

    def _width(self, size: int) -> int:
        return min(size, max(1, math.ceil(self.columns * size)))

    def _hashes(self, seed: int, size: int) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.float32]]]:
        """Position of the first parameter, row, columns and signs, by groups of parameters and then by rows."""
        streams = [Stream.of("sketch", seed, row) for row in range(self.rows)]
        width = np.uint64(self._width(size))
        for at in range(0, size, _AT_ONCE):
            for row, stream in enumerate(streams):
                numbers = stream.u64(min(_AT_ONCE, size - at))
                signs = np.float32(1) - np.float32(2) * (numbers & np.uint64(1)).astype(np.float32)
                yield at, row, ((numbers >> np.uint64(1)) % width).astype(np.int64), signs
