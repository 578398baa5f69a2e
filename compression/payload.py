"""Payloads: a codec's bytes as they travel, sealed by the sender and opened by whoever does not trust it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedpress.compression.codec import Codec, Context, Loss, State, Wire
from fedpress.compression.grouped import per_group
from fedpress.compression.native import kernels
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Spec, Tensors


class Sealed(NamedTuple):
    """A payload; the sender's new ``state``, to be kept once acknowledged; ``arrived`` and ``loss`` as in ``Trip``."""

    payload: bytes
    state: State
    arrived: Tensors
    loss: Loss


def seal(codec: Codec, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[bytes, State]:
    """The payload for finite float32 ``tensors``, and the sender's new state: keep it once acknowledged.

    Raises SpecError for other dtypes, NaN or infinity, or a state of another model; CodecError for an unfinished codec.
    """
    wire, new = _checked(codec, tensors).encode(tensors, state, context, rng)
    return bytes(wire.side), new


def sealed(codec: Codec, tensors: Tensors, state: State, context: Context, rng: Stream) -> Sealed:
    """As ``seal``, with what the receiver makes of it and what was lost."""
    wire, new, arrived, loss = _checked(codec, tensors).trip(tensors, state, context, rng)
    return Sealed(bytes(wire.side), new, arrived, loss)


def _checked(codec: Codec, tensors: Tensors) -> Codec:
    """``codec`` for the groups of ``tensors``, which it can encode. Raises as ``seal`` does."""
    spec = Spec.of(tensors)
    _finished(codec, spec)
    if bad := [n for n, a in tensors.items() if not kernels.finite(np.ravel(a))]:
        raise SpecError(f"Expected finite numbers to encode, got NaN or infinity in {', '.join(bad)}: did it diverge?")
    return per_group(codec, spec)


def unseal(
    codec: Codec, payload: bytes | bytearray | memoryview, state: State, context: Context, spec: Spec
) -> tuple[Tensors, State]:
    """The tensors of ``spec`` in a payload, and the receiver's new state. Of ``raw`` they are views of ``payload``.

    Raises DecodeError for everything that is not a payload of this codec and spec, and for NaN and infinity;
    CodecError for an unfinished codec.
    """
    limit = max_bytes(codec, spec)
    if len(payload) > limit:
        raise DecodeError(f"Expected at most {limit} bytes for '{codec.text}', got {len(payload)}.")
    tensors, new = per_group(codec, spec).decode(Wire(memoryview(payload).toreadonly(), {}), state, context, spec)
    if not all(kernels.finite(np.ravel(a)) for a in tensors.values()):
        raise DecodeError(f"Expected finite numbers in a payload of '{codec.text}', got NaN or infinity.")
    return tensors, new


def max_bytes(codec: Codec, spec: Spec) -> int:
    """The most bytes that a payload for ``spec`` can have. Raises CodecError for an unfinished codec."""
    _finished(codec, spec)
    return per_group(codec, spec).max_bytes(spec)


def _finished(codec: Codec, spec: Spec) -> None:
    if len(codec.rest(spec)):
        raise CodecError(f"Expected a codec that finishes the job, got '{codec.text}': add '+raw' or '+int8'.")
