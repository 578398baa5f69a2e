"""Where a codec's time goes: encode and decode of one update, beside a plain copy of the model.

    python -m fedpress.simulations.benchmarks.codec_time [parameters]

Prints milliseconds (the best of some rounds) and the ratio to ``np.copyto`` of the same model: the ratio travels
between machines better than the time does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, TensorSpec, unflatten

CODECS: Final = (
    "raw",
    "fp16",
    "bf16",
    "int8",
    "int8:per=channel",
    "int8:stochastic=true",
    "int4",
    "sign",
    "topk:0.01+int8",
    "topk:0.1+int8",
    "ef+topk:0.01+int8",
    "randomk:0.01+int8",
)
_PARAMETERS: Final = 1_700_000
_ROUNDS: Final = 9


def update(parameters: int, seed: int = 0) -> dict[str, Array]:
    """Gaussian tensors of a small convolutional network's proportions, about ``parameters`` in all."""
    wide = parameters // 2048
    shapes = {"conv": (64, 64, 3, 3), "dense.weight": (2048, max(1, wide - 20)), "dense.bias": (2048,)}
    spec = Spec(tuple(TensorSpec(name, shape) for name, shape in shapes.items()))
    vector = np.random.default_rng(seed).standard_normal(spec.size, dtype=np.float32)
    return unflatten(vector * np.float32(0.01), spec)


def best(work: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """Seconds of the fastest of ``rounds`` calls."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def rows(parameters: int) -> list[tuple[str, int, float, float, float]]:
    """Per codec: text, payload bytes, seconds to seal, to unseal, and to copy the model."""
    tensors = update(parameters)
    spec = Spec.of(tensors)
    source, target = np.zeros(spec.size, np.float32), np.zeros(spec.size, np.float32)
    found = []
    for text in CODECS:
        codec = parse(text)
        state, context = codec.init(spec), Context(seed=1, round=1)
        payload, _ = seal(codec, tensors, state, context, Stream(1))
        copy = best(partial(np.copyto, target, source))
        encode = best(partial(seal, codec, tensors, state, context, Stream(1)))
        decode = best(partial(unseal, codec, payload, NOTHING, context, spec))
        found.append((codec.text, len(payload), encode, decode, copy))
    return found


def main() -> None:
    """Print the table."""
    parameters = int(sys.argv[1]) if len(sys.argv) > 1 else _PARAMETERS
    lines = [f"{'codec':<28}{'bytes':>10}{'encode ms':>11}{'x copy':>8}{'decode ms':>11}{'x copy':>8}"]
    for text, size, encode, decode, copy in rows(parameters):
        lines.append(
            f"{text:<28}{size:>10}{1e3 * encode:>11.2f}{encode / copy:>8.1f}{1e3 * decode:>11.2f}{decode / copy:>8.1f}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
