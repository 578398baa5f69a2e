"""Coverage-guided fuzzing of every decoder: ``make fuzz`` (or ``python tests/compression/fuzz.py -max_total_time=60``).

The first byte of the input picks a codec of the law suite, the rest is its payload. Whatever arrives, a decoder gives
finite tensors of the spec or raises DecodeError. Atheris (libFuzzer for Python) sees which branches were taken; it sees
into the range coder because the kernels' twins in Python run here, and what these accept the compiled ones must accept.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

os.environ["FEDPRESS_KERNELS"] = "off"
import warnings

import atheris

with atheris.instrument_imports(include=["fedpress.compression"]), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fedpress.compression import registry
    from fedpress.compression.codec import Context
    from fedpress.compression.payload import seal, unseal
    from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError
from fedpress.params import finite


def laws() -> Any:
    """The law suite as a module: its codecs and its model."""
    path = Path(__file__).with_name("test_laws.py")
    spec = importlib.util.spec_from_file_location("laws", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot read '{path}'.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAWS = laws()
CODECS = [registry.parse(text) for text in LAWS.EVERY]
STEP = LAWS.sample(turn=3)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    codec = CODECS[data[0] % len(CODECS)]
    for context in (Context(7, 1), Context(7, 1, STEP)):
        try:
            tensors, _ = unseal(codec, data[1:], codec.memory(LAWS.SPEC), context, LAWS.SPEC)
        except DecodeError:
            continue
        LAWS.SPEC.check(tensors)
        if not finite(tensors):
            raise ValueError(f"'{codec.text}' decoded numbers that are not finite.")


def corpus(directory: Path) -> None:
    """A good payload of every codec, to begin with."""
    directory.mkdir(parents=True, exist_ok=True)
    for place, codec in enumerate(CODECS):
        for context in (Context(7, 1), Context(7, 1, STEP)):
            payload, _ = seal(codec, LAWS.sample(), codec.init(LAWS.SPEC), context, Stream(7))
            (directory / f"{place}-{context.step is not None}").write_bytes(bytes([place]) + payload)


if __name__ == "__main__":
    seeds = Path("build/fuzz")
    corpus(seeds)
    atheris.Setup([*sys.argv, str(seeds)], one)
    atheris.Fuzz()
