"""How fast a codec is, beside a plain copy of the model and zstd-3, all measured one after the other in one process.

Ratios travel between machines better than times do. zstd gets what it could do best with: one byte per parameter that
says which of a tensor's values it is, where a tensor has no more than 256 of them once decoded (*symbols*); else the
float32 numbers themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from fedpress.client.probe import Encoding
from fedpress.compression.payload import seal, unseal
from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra
from fedpress.params import Spec, Tensors, TensorSpec, flatten, unflatten
from fedpress.server.aggregate import WeightedSum
from fedpress.simulations.benchmarks.updates import Updates

try:
    import zstandard
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("The codec benchmark", "dev") from error

_LEVEL: Final = 3
_CALLS, _SECONDS = 7, 0.5
_COLUMNS: Final = 1024


@dataclass(frozen=True)
class Speed:
    """Seconds for one update of ``parameters``; ``decode`` includes folding it into a round's sum."""

    parameters: int
    payload: int
    encode: float
    decode: float
    copy: float
    zstd_symbols: bool
    zstd_payload: int
    zstd_encode: float
    zstd_decode: float

    def rate(self, seconds: float) -> float:
        """Bytes of float32 per second."""
        return 4 * self.parameters / seconds


def speed(encoding: Encoding, arrived: Tensors) -> Speed:
    """Times of one payload's making and opening. ``arrived``: what a receiver makes of it."""
    codec, delta, state, context, _ = encoding
    spec = Spec.of(delta)
    payload, _ = seal(codec, delta, state, context, Stream(1))
    memory, total = codec.memory(spec), WeightedSum(spec)

    def decode() -> None:
        total.fold(unseal(codec, payload, memory, context, spec)[0], 1.0)

    codes = _symbols(arrived)
    raw = flatten(delta).tobytes() if codes is None else codes
    squeezed = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
    source, target = flatten(delta), np.empty(spec.size, np.float32)
    return Speed(
        parameters=spec.size,
        payload=len(payload),
        encode=_best(lambda: seal(codec, delta, state, context, Stream(1))),
        decode=_best(decode),
        copy=_best(partial(np.copyto, target, source)),
        zstd_symbols=codes is not None,
        zstd_payload=len(squeezed),
        zstd_encode=_best(lambda: zstandard.ZstdCompressor(level=_LEVEL).compress(raw)),
        zstd_decode=_best(lambda: zstandard.ZstdDecompressor().decompress(squeezed)),
    )


def enlarged(updates: Updates, size: int) -> tuple[Tensors, Tensors]:
    """The recorded deltas and steps, one after the other and over again, as a matrix and a bias of ``size`` in all."""
    rows, rest = divmod(size, _COLUMNS)
    spec = Spec((TensorSpec("weight", (rows, _COLUMNS)), TensorSpec("bias", (rest,))))
    known = [u for u in updates.rows if u.step is not None] or list(updates.rows)
    delta = np.concatenate([flatten(u.delta) for u in known])
    step = np.concatenate([flatten(u.step or u.delta) for u in known])
    return unflatten(np.resize(delta, size), spec), unflatten(np.resize(step, size), spec)


def _symbols(arrived: Tensors) -> bytes | None:
    """A byte per parameter that numbers its value within its tensor; None where a tensor has more than 256."""
    codes = []
    for array in arrived.values():
        values, places = np.unique(array, return_inverse=True)
        if values.size > 256:
            return None
        codes.append(places.astype(np.uint8).tobytes())
    return b"".join(codes)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    taken: list[float] = []
    while len(taken) < _CALLS and sum(taken) < _SECONDS:
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)
