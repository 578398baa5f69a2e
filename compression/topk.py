"""Top-k: only the largest magnitudes travel (Aji and Heafield 2017; Lin et al. 2018, "Deep Gradient Compression").

Exact and global: one threshold for the whole update, not one per layer, and no sampling. Indices travel as Rice-coded
gaps (``fedpress.compression.gaps``), values go on to the next codec. Biased: meant to stand behind ``ef``.

``method=histogram`` finds the threshold in one pass over the magnitudes' bits, to 1/128 of itself: for devices without
a fast selection (NumPy's own, on vector units, is the faster one). k is met exactly all the same, the bytes read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np

from fedpress.compression import gaps
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import (
    VALUES,
    Sparse,
    largest,
    largest_values,
    nearly_largest,
    scatter,
    squared_norm,
)
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, flatten

_METHODS: Final[Mapping[str, Any]] = {"exact": largest, "histogram": nearly_largest}


@dataclass(frozen=True)
class TopK(Sparse):
    """The share ``density`` of largest magnitudes over the whole update; ``method`` histogram: nearly, in one pass."""

    method: Literal["exact", "histogram"] = "exact"
    id: ClassVar[str] = "topk"
    unbiased: ClassVar[bool] = False  #: small parameters never arrive

    @property
    def keeps(self) -> float:
        """The share that is sent, were all alike; of nearly largest numbers a little less."""
        return self.density * (1.0 if self.method == "exact" else 1 - 1 / 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in _METHODS:
            raise CodecError(f"Expected exact or histogram, got '{self.method}' (topk.method).")

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: the indices. Rest: the values, in index order."""
        vector = flatten(tensors)
        indices = _METHODS[self.method](vector, self.kept(vector.size))
        return Wire(gaps.encode(indices, vector.size), {VALUES: vector[indices]}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Zeros where nothing was sent. Raises DecodeError."""
        return scatter(gaps.decode(wire.side, self.kept(spec.size), spec.size), wire, spec), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """What is left, or what is nearly so and larger."""
        return {VALUES: largest_values(tensors, self.kept(Spec.of(tensors).size))}

    def error_bound(self, tensors: Tensors) -> float:
        """(1 - k/n) times the squared norm (Stich, Cordonnier, Jaggi 2018, Lemma A.1).

        Of a histogram, what is dropped may be larger than what is kept by 1/128, or where numbers have no exponent.
        """
        size = Spec.of(tensors).size
        kept = self.share(size)
        if self.method == "exact":
            return (1 - kept) * squared_norm(tensors)
        dropped = (1 - kept) * (1 + 1 / 128) ** 2
        return dropped / (kept + dropped) * squared_norm(tensors) + size * float(np.finfo(np.float32).tiny) ** 2

    def max_bytes(self, spec: Spec) -> int:
        """Of the indices alone."""
        return gaps.max_bytes(self.kept(spec.size), spec.size)
