"""Top-k: only the largest magnitudes travel (Aji and Heafield 2017; Lin et al. 2018, "Deep Gradient Compression").

Exact and global: one threshold for the whole update, not one per layer, and no sampling. Indices travel as Rice-coded
gaps (``fedpress.compression.gaps``), values go on to the next codec. Biased: meant to stand behind ``ef``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.compression import gaps
from fedpress.compression.codec import Context, State, Wire
from fedpress.compression.sparse import VALUES, Sparse, largest, largest_values, scatter, squared_norm
from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors, flatten


@dataclass(frozen=True)
class TopK(Sparse):
    """The share ``density`` of parameters with the largest magnitudes, over the whole update."""

    id: ClassVar[str] = "topk"

    @property
    def unbiased(self) -> bool:
        """Small parameters never arrive."""
        return False

    @property
    def contractive(self) -> bool:
        """What is not sent is part of what there was."""
        return True

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:  # noqa: ARG002
        """Side: the indices. Rest: the values, in index order."""
        vector = flatten(tensors)
        indices = largest(vector, self.kept(vector.size))
        return Wire(gaps.encode(indices, vector.size), {VALUES: vector[indices]}), state

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:  # noqa: ARG002
        """Zeros where nothing was sent. Raises DecodeError."""
        return scatter(gaps.decode(wire.side, self.kept(spec.size), spec.size), wire, spec), state

    def largest_rest(self, tensors: Tensors) -> Tensors:
        """Exactly what is left."""
        return {VALUES: largest_values(tensors, self.kept(Spec.of(tensors).size))}

    def error_bound(self, tensors: Tensors) -> float:
        """(1 - k/n) times the squared norm (Stich, Cordonnier, Jaggi 2018, Lemma A.1)."""
        return (1 - self.share(Spec.of(tensors).size)) * squared_norm(tensors)

    def max_bytes(self, spec: Spec) -> int:
        """Of the indices alone."""
        return gaps.max_bytes(self.kept(spec.size), spec.size)
