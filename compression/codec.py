"""The codec's contract. Everything that makes bytes of tensors in fedpress keeps it.

The laws, which one suite (``tests/compression/test_laws.py``) holds against every codec:

1. **Round trip.** ``decode(encode(x))`` has the spec of ``x`` and a squared error of at most ``error_bound(x)``, always
   for a deterministic codec, in the mean for a randomised one.
2. **Unbiased where it says so.** With ``unbiased`` true, the mean of ``decode(encode(x))`` over seeds is ``x``.
3. **Same bytes.** The same tensors, state, context and seed give the same bytes on every platform.
4. **Nothing that arrives decides memory.** What a decoder allocates follows from the spec and the codec's own options.
   A malformed payload raises ``DecodeError`` in bounded time; so does a NaN or an infinity in it.
5. **State is returned, never mutated.** A sender commits the new state only when the receiver acknowledged the payload,
   a receiver its own together with the acknowledgement.
6. **Progress.** The squared error of a round trip is, in the mean over seeds, at most ``1 - keeps`` times the squared
   norm of what was encoded, on every input, where ``keeps`` is not negative. ``contractive`` says that ``keeps`` is at
   least ``PROGRESS``: with feedback around it everything arrives in the end (Karimireddy et al. 2019's compressors).
   Numbers below 2**-100 count as zeros.
7. **Both ends remember alike.** What a receiver remembers the sender has too, under the same names in its own state,
   and after each payload to the same bits (``assumed``).

A codec is a frozen dataclass; its fields are its options. They live outside the payload, as JSON or as the one-line
text of ``fedpress.compression.registry``.

**Chains.** A codec need not finish the job: ``encode`` gives a ``Wire`` with the codec's own bytes (``side``) and the
tensors it leaves to the next codec (``rest``): top-k leaves its values, a quantiser leaves nothing. ``rest(spec)`` says
beforehand what will be left, which is how the decoder knows every shape without being told. ``Chain`` composes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from fedpress.compression.native import kernels
from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors, subtract

#: A payload or a piece of one. Decoders read through views, so that a raw model is not copied.
Bytes: TypeAlias = bytes | memoryview

#: What one side remembers between rounds, by name. Plain tensors, so that vault and store can keep it as safetensors.
State: TypeAlias = Tensors
NOTHING: State = MappingProxyType({})


@dataclass(frozen=True)
class Context:
    """What both ends hold anyway. ``seed`` comes with the ticket; ``round`` counts from 1.

    ``step``: what the newest download added to the model, to the bit; None where this end cannot know it (a device that
    fetched a whole model). A payload that depends on it says so, because the other end may know more.
    """

    seed: int = 0
    round: int = 0
    step: Tensors | None = None


#: The least share of the energy of any input that a ``contractive`` codec keeps.
PROGRESS: Final = 0.05


class Wire(NamedTuple):
    """One codec's output: its own bytes, and the tensors left for the next codec ({} when it is the last)."""

    side: Bytes
    rest: Tensors


class Loss(NamedTuple):
    """What a lossy encoding was ``given`` and what it ``lost`` of it, as energies (sums of squares)."""

    given: float
    lost: float

    @property
    def share(self) -> float:
        """The share of the energy that was lost (the normalised squared error); 0 where nothing was given."""
        return self.lost / self.given if self.given > 0 else 0.0

    @property
    def stalls(self) -> bool:
        """Less than ``PROGRESS`` of the energy arrived: with feedback it might never."""
        return self.lost > (1 - PROGRESS) * self.given

    @classmethod
    def of(cls, given: Tensors, arrived: Tensors) -> Loss:
        """Of tensors and of what became of them; the same float64 on every platform."""
        return cls(energy(given), energy(subtract(given, arrived)))


class Trip(NamedTuple):
    """An encoding, and what its receiver makes of it.

    ``arrived``: the tensors as the receiver decodes them. ``loss``: of what was encoded, which with feedback is the
    update and what earlier ones lost.
    """

    wire: Wire
    state: State
    arrived: Tensors
    loss: Loss


class Codec(Protocol):
    """See the module's docstring for the laws."""

    @property
    def id(self) -> str:
        """Stable name; the same id means mutually decodable."""

    @property
    def text(self) -> str:
        """The canonical one-line text: ``parse(codec.text) == codec``."""

    @property
    def commutes_with_sum(self) -> bool:
        """What is left to send after this codec may be summed before decoding (secure aggregation)."""

    @property
    def unbiased(self) -> bool:
        """The mean over seeds of what is decoded is what was encoded."""

    @property
    def keeps(self) -> float:
        """The share of the energy of any input that arrives at least, in the mean; 0 where only this is promised, that
        no more is lost than there was; negative where not even that is."""

    @property
    def contractive(self) -> bool:
        """``keeps`` is at least ``PROGRESS``: what error feedback needs."""

    def init(self, spec: Spec) -> State:
        """What a *sender* remembers before its first payload; ``NOTHING`` if it needs no memory."""

    def memory(self, spec: Spec) -> State:
        """What a *receiver* remembers of a sender before its first payload: most need ``NOTHING``."""

    def rest(self, spec: Spec) -> Spec:
        """The spec of ``Wire.rest`` for tensors of ``spec``. Empty when this codec finishes the job."""

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Encode float32 ``tensors``. ``rng`` is the sender's own randomness. Returns the wire and the *new* state."""

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """``encode``, and what the receiver will make of it. Of a codec that finishes the job."""

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Inverse of ``encode`` up to the error bound; ``state`` is the receiver's. Raises DecodeError."""

    def error_bound(self, tensors: Tensors) -> float:
        """Upper bound on the squared L2 error of a round trip of these tensors (in the mean, if randomised)."""

    def max_bytes(self, spec: Spec) -> int:
        """Upper bound on ``len(Wire.side)`` for any tensors of ``spec``: of the payload, if nothing is left."""


def prefixed(state: Mapping[str, State]) -> State:
    """One flat state of several, each under its key and a slash."""
    return {f"{key}/{name}": array for key, part in state.items() for name, array in part.items()}


def part(state: State, key: str) -> State:
    """The state that ``prefixed`` filed under ``key``."""
    start = f"{key}/"
    return {name[len(start) :]: array for name, array in state.items() if name.startswith(start)}


def assumed(codec: Codec, state: State, spec: Spec) -> State:
    """What the receiver remembers, as a sender with ``state`` knows it (law 7)."""
    return {name: state[name] for name in codec.memory(spec)}


def energy(tensors: Tensors) -> float:
    """The sum of squares of all numbers; the same float64 on every platform."""
    return math.fsum(kernels.sum_squares(np.ravel(array)) for array in tensors.values())
