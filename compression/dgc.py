"""Deep gradient compression: error feedback with momentum, for very sparse updates (Lin, Han, Mao, Wang, Dally 2018,
"Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training").

    u <- momentum^k * u + x    momentum correction: what waits to be sent keeps its velocity, k rounds later
    v <- v + u                 what is not sent accumulates
    send v through the inner chain; what it loses stays in v; where anything arrived, u <- 0

The last is momentum factor masking: a delayed entry shall not push on in a direction that is old. What "arrived" is any
entry that decodes to something other than zero, so it takes a chain that zeroes most (``topk``, ``stc``, ``ecsq``);
around a dense one u is always zeroed, and this is ``ef``.

**Warm-up.** In the first ``warmup`` rounds a density of a quarter is halved in even steps until it is that of the inner
chain's first stage: early updates change direction too quickly to be delayed. Powers of two, because both ends must
find the same number of entries, and powers in general are not rounded alike everywhere. Which round it is both ends
know; a payload's largest size is therefore that of the first rounds, whatever the round.

Deviations from the paper: updates of rounds instead of gradients, and no clipping of them. The velocity fades in rounds
that a device missed, too: without that it did harm where a quarter of the devices took part in a round. 0.7 instead of
0.9, which overshot with updates of many local steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from fedpress.compression.chain import Chain
from fedpress.compression.codec import Context, State, Trip, Wire, part, prefixed
from fedpress.compression.sparse import Sparse
from fedpress.compression.stage import Stage
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import INNER, ROUND, Wrapper, faded, stages_of
from fedpress.errors import CodecError
from fedpress.params import Spec, Tensors, add, subtract, zeros

_VELOCITY: Final = "velocity"
_RESIDUAL: Final = "residual"
_FIRST_DENSITY: Final = 0.25
_LONGEST: Final = 1000


@dataclass(frozen=True)
class DGC(Wrapper):
    """Error feedback whose residual keeps moving by ``momentum``; the density comes down over ``warmup`` rounds."""

    momentum: float = 0.7
    warmup: int = 0
    id: ClassVar[str] = "dgc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise CodecError(f"Expected 0 <= momentum < 1, got {self.momentum} (dgc.momentum).")
        if not 0 <= self.warmup <= _LONGEST:
            raise CodecError(f"Expected 0 to {_LONGEST} rounds, got {self.warmup} (dgc.warmup).")
        first = stages_of(self.inner)[0]
        if self.warmup and not (isinstance(first, Sparse) and first.density < _FIRST_DENSITY):
            raise CodecError(
                f"Expected dgc.warmup = 0, or first a stage with a density below {_FIRST_DENSITY} such as 'topk:0.01', "
                f"got '{first.text}'."
            )

    def init(self, spec: Spec) -> State:
        """Velocity and residual of zeros (8 bytes per parameter), the round they are of, and the inner state."""
        parts = {_VELOCITY: zeros(spec), _RESIDUAL: zeros(spec), INNER: self.inner.init(spec)}
        return {ROUND: np.array(0, np.int64), **prefixed(parts)}

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """Of the residual with its momentum. Raises SpecError if the state is of another model."""
        spec = Spec.of(tensors)
        past = self._recall(state, _VELOCITY, spec)
        momentum = np.float32(faded(self.momentum, context.round - int(state[ROUND])))
        velocity = add(tensors, {n: momentum * a for n, a in past.items()})
        waiting = add(self._recall(state, _RESIDUAL, spec), velocity)
        made = self._sent(self._at(context.round), waiting, part(state, INNER), context, rng)
        kept = {n: np.where(made.arrived[n] == 0, a, np.float32(0)) for n, a in velocity.items()}
        parts = {_VELOCITY: kept, _RESIDUAL: subtract(waiting, made.arrived), INNER: made.state}
        return made._replace(state={ROUND: np.array(context.round, np.int64), **prefixed(parts)})

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """As the inner codec at the round's density. Raises DecodeError."""
        tensors, inner = self._received(self._at(context.round), wire, part(state, INNER), context, spec)
        return tensors, prefixed({INNER: inner})

    def error_bound(self, tensors: Tensors) -> float:
        """The largest of any round, for a first update."""
        return max(self._bound(self._halved(times), tensors) for times in range(self._halvings + 1))

    def max_bytes(self, spec: Spec) -> int:
        """The most of any round."""
        return max(self._most(self._halved(times), spec) for times in range(self._halvings + 1))

    @property
    def _halvings(self) -> int:
        """From the first round's density to the inner chain's; 0 without a warm-up."""
        first, times = stages_of(self.inner)[0], 0
        while self.warmup and isinstance(first, Sparse) and _FIRST_DENSITY / 2**times > first.density:
            times += 1
        return times

    def _at(self, round_: int) -> Stage | Chain:
        """The inner chain at the density of a round."""
        done = max(0, round_ - 1)
        return self.inner if done >= self.warmup else self._halved(done * self._halvings // self.warmup)

    def _halved(self, times: int) -> Stage | Chain:
        """The inner chain at the first density, halved so many times."""
        first, *others = stages_of(self.inner)
        if times == self._halvings or not isinstance(first, Sparse):
            return self.inner
        stage = replace(first, density=_FIRST_DENSITY / 2**times)
        return Chain((stage, *others)) if others else stage
