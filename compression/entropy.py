"""The entropy stage: small signed integers, mostly zero, as few bits as their statistics allow.

Used inside codecs that quantise (``ecsq``, ``dither``, ``qsgd``, ``terngrad``, ``stc``); not a stage of its own.

    encode(levels, spec, limit, model, hint)    int32[n] with |level| <= limit, in the order of the flattened tensors
    decode(data, spec, limit, model, hint)      the same integers, or DecodeError

``spec`` says which tensors the integers are of: rows and columns are contexts. ``hint``: uint8[n], 0 to 3, what both
ends hold that says where non-zeros are likely (None: nothing).
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import bits
from fedpress.compression.codec import Bytes
from fedpress.errors import DecodeError
from fedpress.params import Spec

Model: TypeAlias = Literal["static", "adaptive", "context"]
_RAW: Final = 0


def max_bytes(spec: Spec, limit: int) -> int:
    """Most bytes that ``encode`` gives for levels of ``spec`` up to ``limit``: packed as they are, and a byte."""
    return 1 + bits.packed_size(spec.size, _width(limit))


def encode(
    levels: NDArray[np.int32],
    spec: Spec,
    limit: int,
    model: Model = "context",  # noqa: ARG001
    hint: NDArray[np.uint8] | None = None,  # noqa: ARG001
) -> bytes:
    """``levels`` (int32[n], magnitudes up to ``limit``) as bytes, never more than ``max_bytes``."""
    return bytes([_RAW]) + bits.pack(levels + limit, _width(limit))


def decode(
    data: Bytes,
    spec: Spec,
    limit: int,
    model: Model = "context",  # noqa: ARG001
    hint: NDArray[np.uint8] | None = None,  # noqa: ARG001
) -> NDArray[np.int32]:
    """int32[n]. Raises DecodeError for anything that ``encode`` would not give."""
    if not len(data) or data[0] != _RAW:
        raise DecodeError("Expected a known way of coding levels.")
    packed: NDArray[Any] = bits.unpack(data[1:], _width(limit), spec.size)
    levels = packed.astype(np.int32) - limit
    if levels.size and int(levels.max()) > limit:
        raise DecodeError(f"Expected levels up to {limit}, got {int(levels.max())}.")
    return levels


def _width(limit: int) -> int:
    return (2 * limit).bit_length()
