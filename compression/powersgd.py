"""PowerSGD: every matrix of an update becomes the product of two thin ones (Vogels, Karimireddy, Jaggi 2019, "PowerSGD:
Practical Low-Rank Gradient Compression for Distributed Optimization").

A tensor of shape (m, ...) is the matrix M of m rows. One step of subspace iteration: P = M Q with the Q of the last
update (warm start), the columns of P made orthonormal, Q = M' P; P and Q travel, P Q' arrives. Tensors for which P and
Q would not be fewer numbers (biases, scalars, small matrices) travel as they are.

Deviations from the paper: each sender has its own Q, in its own state, because what arrives from many is averaged only
after decoding. P is rounded to what travels *before* Q is made with it, so that P Q' never errs by more than M is long,
in any precision. A column of Q that vanished keeps its old direction, lest an update of zeros end the iteration.

All sums are of pairs in float64, halving, so that every platform has the same bytes; decoding adds one rank after the
other in float32. Payload: P, then Q of the first tensor, or the tensor; then the next, all in one precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import NOTHING, Context, State, Wire
from fedpress.compression.half import Bf16, Fp16
from fedpress.compression.raw import Raw
from fedpress.compression.sparse import squared_norm
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError
from fedpress.params import Array, Spec, Tensors, TensorSpec

_FLOATS: Final[Mapping[str, Stage]] = {"bf16": Bf16(), "fp16": Fp16(), "fp32": Raw()}
_WIDEST: Final = 64
#: Shorter columns are rounding errors of the longest one, or of nothing.
_DEPENDENT: Final = 2.0**-30
_ROUNDING: Final = 1e-5
#: What travels, by name.
_P, _Q, _WHOLE = "P of ", "Q of ", "all of "

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class PowerSGD(Stage):
    """Matrices as products of rank ``rank``, warm-started; all numbers travel as bf16, fp16 or fp32 (``dtype``)."""

    rank: int = 2
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    id: ClassVar[str] = "powersgd"
    unbiased: ClassVar[bool] = False  #: what is outside the subspace never arrives
    keeps: ClassVar[float] = 0.0  #: a projection: what is lost is part of what there was, and may be most of it

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= _WIDEST:
            raise CodecError(f"Expected a rank from 1 to {_WIDEST}, got {self.rank} (powersgd.rank).")
        if self.dtype not in _FLOATS:
            raise CodecError(f"Expected bf16, fp16 or fp32, got '{self.dtype}' (powersgd.dtype).")

    def init(self, spec: Spec) -> State:
        """The first Q of every matrix, float32 (columns, rank): random, and the same for every sender."""
        return {t.name: _first(columns, self.rank, t.name) for t in spec if (columns := self._columns(t))}

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """P and Q, or the tensor, one after the other. Raises SpecError for a state of another model."""
        spec, factors, new = Spec.of(tensors), dict[str, Array](), dict[str, Array]()
        known = self._state_spec(spec)
        known.check({n: state[n] for n in known.names if n in state}, "the state of 'powersgd'")
        for t in spec:
            if columns := self._columns(t):
                matrix = tensors[t.name].reshape(-1, columns)
                p, q = self._factors(matrix, state[t.name], context, rng)
                factors[_P + t.name], factors[_Q + t.name] = p, q
                new[t.name] = _directions(q, state[t.name])
            else:
                factors[_WHOLE + t.name] = tensors[t.name]
        return self._float.encode(factors, NOTHING, context, rng)[0], new

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Products of the factors. Raises DecodeError on another length."""
        factors, _ = self._float.decode(wire, NOTHING, context, self._factor_spec(spec))
        out: dict[str, Array] = {}
        for t in spec:
            if self._columns(t):
                out[t.name] = _product(factors[_P + t.name], factors[_Q + t.name]).reshape(t.shape)
            else:
                out[t.name] = factors[_WHOLE + t.name]
        return out, state

    def error_bound(self, tensors: Tensors) -> float:
        """The squared norm of what becomes a product, and the rounding of the rest."""
        matrices = {t.name: tensors[t.name] for t in Spec.of(tensors) if self._columns(t)}
        others = {name: array for name, array in tensors.items() if name not in matrices}
        return squared_norm(matrices) * (1 + _ROUNDING) + self._float.error_bound(others)

    def max_bytes(self, spec: Spec) -> int:
        """Exactly: 2 or 4 bytes per number."""
        return self._float.max_bytes(self._factor_spec(spec))

    @property
    def _float(self) -> Stage:
        return _FLOATS[self.dtype]

    def _columns(self, t: TensorSpec) -> int:
        """Columns of the matrix; 0 if the tensor travels as it is."""
        rows = t.shape[0] if len(t.shape) >= 2 else 0
        columns = t.size // rows if rows else 0
        return columns if self.rank * (rows + columns) < t.size else 0

    def _factor_spec(self, spec: Spec) -> Spec:
        """What travels."""
        found: list[TensorSpec] = []
        for t in spec:
            if columns := self._columns(t):
                found.append(TensorSpec(_P + t.name, (t.shape[0], self.rank)))
                found.append(TensorSpec(_Q + t.name, (columns, self.rank)))
            else:
                found.append(TensorSpec(_WHOLE + t.name, t.shape))
        return Spec(tuple(found))

    def _state_spec(self, spec: Spec) -> Spec:
        return Spec(tuple(TensorSpec(t.name, (c, self.rank)) for t in spec if (c := self._columns(t))))

    def _factors(self, matrix: Array, q: Array, context: Context, rng: Stream) -> tuple[Array, Array]:
        """P and Q as they will arrive."""
        p = _orthonormal(_times(matrix, q))
        p = self._rounded(p, context, rng)
        return p, self._rounded(_times(matrix.T, p), context, rng)

    def _rounded(self, factor: Float64, context: Context, rng: Stream) -> Array:
        largest = np.finfo(np.float32).max
        tensors = {"factor": np.clip(factor, -largest, largest).astype(np.float32)}
        wire, _ = self._float.encode(tensors, NOTHING, context, rng)
        return self._float.decode(wire, NOTHING, context, Spec.of(tensors))[0]["factor"]


def _first(columns: int, rank: int, name: str) -> Array:
    return Stream.of("powersgd", name).uniform(columns * rank).reshape(columns, rank) - np.float32(0.5)


def _times(matrix: Array, thin: Array) -> Float64:
    """float64 (rows, rank): a product whose sums have an order."""
    wide = matrix.T.astype(np.float64)
    return np.stack([_sum(wide * column[:, None]) for column in thin.T.astype(np.float64)], axis=1)


def _sum(terms: Float64) -> Float64:
    """The sum over the first axis: the second half onto the first, until one is left. ``terms`` is used up."""
    size = len(terms)
    while size > 1:
        half = (size + 1) // 2
        terms[: size - half] += terms[half:size]
        size = half
    total: Float64 = terms[0]
    return total


def _orthonormal(p: Float64) -> Float64:
    """Modified Gram-Schmidt, twice for each column; what depends on the columns before becomes zero."""
    columns: list[Float64] = []
    for column in p.T.copy():
        length = math.sqrt(_sum(column * column))
        for other in columns * 2:
            column -= other * _sum(other * column)
        left = math.sqrt(_sum(column * column))
        columns.append(column / left if left > _DEPENDENT * length else np.zeros_like(column))
    return np.stack(columns, axis=1)


def _directions(q: Array, before: Array) -> Array:
    """Float32 columns of length one, for the next update: with any sizes, their span is all that counts."""
    lengths = np.sqrt(_sum(np.square(q, dtype=np.float64)))
    return np.where(lengths > 0, q / np.where(lengths > 0, lengths, 1), before).astype(np.float32)


def _product(p: Array, q: Array) -> Array:
    """float32 (rows, columns): one rank after the other, each number one product and one sum."""
    out = np.zeros((len(p), len(q)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for left, right in zip(p.T, q.T, strict=True):
            out += np.multiply.outer(left, right)
    return out
