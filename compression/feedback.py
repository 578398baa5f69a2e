"""Error feedback: what a lossy codec left out of one update is added to the next (Seide et al. 2014, "1-Bit SGD";
Karimireddy et al. 2019, "Error Feedback Fixes SignSGD").

The sender decodes its own payload and remembers the difference. Over rounds the errors telescope: the sum of what was
decoded is the sum of what was encoded, less the last residual. The receiver needs nothing: the inner codec's payload
is the payload. Deviation from the papers: feedback acts on whole updates (deltas of a round), not on single
gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedpress.compression.chain import Chain, finishes
from fedpress.compression.codec import Context, State, Wire, part, prefixed
from fedpress.compression.options import Options
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, add, subtract, zeros

_RESIDUAL = "residual"
_INNER = "inner"


@dataclass(frozen=True)
class ErrorFeedback(Options):
    """Adds what earlier updates lost to the next one. Stands first and wraps the whole chain."""

    inner: Stage | Chain
    id: ClassVar[str] = "ef"

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Stage | Chain):
            raise CodecError(f"Expected a stage or a chain inside 'ef', got '{self.inner.text}'.")
        if isinstance(self.inner, Stage) and not finishes(self.inner):
            raise CodecError(f"Expected a last stage after '{self.inner.text}' inside 'ef', such as 'raw' or 'int8'.")

    @property
    def text(self) -> str:
        """``ef+`` and the inner text."""
        return f"ef+{self.inner.text}"

    @property
    def commutes_with_sum(self) -> bool:
        """As the inner codec: the receiver sees only that."""
        return self.inner.commutes_with_sum

    @property
    def unbiased(self) -> bool:
        """One payload alone is not what was encoded; only sums over rounds are."""
        return False

    @property
    def contractive(self) -> bool:
        """One payload alone may carry more of the past than of the present."""
        return False

    def memory(self, spec: Spec) -> State:
        """The inner codec's: the receiver sees only that."""
        return self.inner.memory(spec)

    def init(self, spec: Spec) -> State:
        """A residual of zeros (4 bytes per parameter), and the inner state."""
        return prefixed({_RESIDUAL: zeros(spec), _INNER: self.inner.init(spec)})

    def rest(self, spec: Spec) -> Spec:
        """Nothing is left."""
        return self.inner.rest(spec)

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Encode ``tensors`` plus residual. Raises SpecError if the state is of another model."""
        residual = part(state, _RESIDUAL)
        spec = Spec.of(tensors)
        spec.check({n: residual[n] for n in spec.names if n in residual}, "the residual of 'ef'")
        corrected = add(tensors, residual)
        wire, inner, arrived = self.inner.echo(corrected, part(state, _INNER), context, rng)
        return wire, prefixed({_RESIDUAL: subtract(corrected, arrived), _INNER: inner})

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """As the inner codec. Raises DecodeError."""
        return self.inner.decode(wire, state, context, spec)

    def error_bound(self, tensors: Tensors) -> float:
        """The inner codec's, for a residual of zeros."""
        return self.inner.error_bound(tensors)

    def max_bytes(self, spec: Spec) -> int:
        """As the inner codec."""
        return self.inner.max_bytes(spec)
