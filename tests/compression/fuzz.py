"""Coverage-guided fuzzing of every decoder: ``make fuzz`` (or ``python tests/compression/fuzz.py -max_total_time=60``).

The first byte of the input picks who reads the rest:

    a codec of the law suite   a payload, of the suite's model or of that in several groups (``compression.grouped``)
    the device                 what an EnrolReply says will travel (``compression.layout``)

Whatever arrives, a decoder gives finite tensors of the spec or raises DecodeError, and a device begins with tensors of
the layout that it was told or raises SpecError. Atheris (libFuzzer for Python) sees which branches were taken; it sees
into the range coder because the kernels' twins in Python run here, and what these accept the compiled ones must accept.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError as NotAMessage

os.environ["FEDPRESS_KERNELS"] = "off"
import warnings

import atheris
import numpy as np

with atheris.instrument_imports(include=["fedpress.compression"]), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fedpress.compression import registry
    from fedpress.compression.codec import Codec, Context
    from fedpress.compression.grouped import per_group
    from fedpress.compression.layout import begin, beside, from_infos, plain, spec_of, to_infos
    from fedpress.compression.payload import seal, unseal
    from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError, SpecError
from fedpress.params import Spec, Tensors, finite
from fedpress.protos import fleet_pb2 as pb


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
#: The model in three groups. Not all of its tensors are in each, and one group stays as it was.
LAYOUT = (*plain(LAWS.SPEC.names), *beside("control", ["conv", "bias"]), *beside("still", ["dense"], start=2))
GROUPS = spec_of(LAYOUT, LAWS.SPEC)
CODECS = [registry.parse(text) for text in LAWS.EVERY]
CASES = [(codec, spec) for spec in (LAWS.SPEC, GROUPS) for codec in CODECS]
SEED = 7


def contexts(spec: Spec) -> tuple[Context, Context]:
    """Without and with a last step."""
    return Context(SEED, 1), Context(SEED, 1, LAWS.sample(spec, turn=3))


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    place = data[0] % (len(CASES) + 1)
    if place == len(CASES):
        told(data[1:])
    else:
        decoded(*CASES[place], data[1:])


def decoded(codec: Codec, spec: Spec, payload: bytes) -> None:
    """Held to the law of decoders."""
    for context in contexts(spec):
        try:
            tensors, _ = unseal(codec, payload, per_group(codec, spec).memory(spec), context, spec)
        except DecodeError:
            continue
        spec.check(tensors)
        if not finite(tensors):
            raise ValueError(f"'{codec.text}' decoded numbers that are not finite.")


def told(data: bytes) -> None:
    """Held to the law of layouts."""
    try:
        layout, spec = from_infos(pb.EnrolReply.FromString(data).spec, LAWS.SPEC)
    except (NotAMessage, SpecError):
        return
    spec.check(begin(layout, LAWS.sample()))
    if any(part.name.rpartition(":")[2] != part.of for part in layout):
        raise ValueError(f"A layout gives tensors names that are not theirs: {layout}.")


def updates(spec: Spec) -> dict[str, Tensors]:
    """What leads encoders to all that they may send: tensors far apart have steps of their own, and of numbers of one
    size chains that promise no progress lose most."""
    plain = {n: a * (not n.startswith("still:")) for n, a in LAWS.sample(spec).items()}
    apart = {n: a * np.float32(10.0 ** (-3 * i)) for i, (n, a) in enumerate(plain.items())}
    return {"plain": plain, "apart": apart, "alike": {n: np.sign(a) for n, a in plain.items()}}


def corpus(directory: Path) -> None:
    """What is good of every case, to begin with."""
    directory.mkdir(parents=True, exist_ok=True)
    for place, (codec, spec) in enumerate(CASES):
        for kind, update in updates(spec).items():
            for context in contexts(spec):
                payload, _ = seal(codec, update, per_group(codec, spec).init(spec), context, Stream(SEED))
                (directory / f"{place}-{kind}-{context.step is not None}").write_bytes(bytes([place]) + payload)
    reply = pb.EnrolReply(spec=to_infos(LAYOUT, GROUPS)).SerializeToString()
    (directory / f"{len(CASES)}").write_bytes(bytes([len(CASES)]) + reply)


if __name__ == "__main__":
    seeds = Path("build/fuzz")
    corpus(seeds)
    atheris.Setup([*sys.argv, str(seeds)], one)
    atheris.Fuzz()
