"""Every codec by its id, and the one-line text that plans, tickets and the command line use.

    ef:0.9+topk:0.01+uniform:4,per=channel

Stages stand in the order in which they encode, joined by ``+``. A wrapper (``ef``, ``ef21``, ``dgc``) stands first and
wraps all to its right. A chain that would leave something unsent is finished with ``raw``. Options: see
``fedpress.compression.options``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from fedpress.compression.blockfloat import Fp8, Nf4
from fedpress.compression.chain import Chain, finishes
from fedpress.compression.codec import Codec
from fedpress.compression.dgc import DGC
from fedpress.compression.dither import Dither
from fedpress.compression.ecsq import Ecsq
from fedpress.compression.ef21 import EF21
from fedpress.compression.feedback import ErrorFeedback
from fedpress.compression.hadamard import Hadamard
from fedpress.compression.half import Bf16, Fp16
from fedpress.compression.lossless import Lossless
from fedpress.compression.modular import Modular
from fedpress.compression.nmse import Nmse
from fedpress.compression.options import Option, build, options_of, read, values_of
from fedpress.compression.powersgd import PowerSGD
from fedpress.compression.predict import Predict
from fedpress.compression.qsgd import QSGD
from fedpress.compression.randomk import RandomK
from fedpress.compression.raw import Raw
from fedpress.compression.rotation import Rotation
from fedpress.compression.sketch import Sketch
from fedpress.compression.stage import Stage
from fedpress.compression.stc import STC
from fedpress.compression.terngrad import TernGrad
from fedpress.compression.topk import TopK
from fedpress.compression.uniform import Uniform
from fedpress.compression.wrapper import Wrapper
from fedpress.errors import CodecError, closest
from fedpress.params import Spec, TensorSpec

_STAGES: Final[Mapping[str, type[Stage]]] = {
    c.id: c
    for c in (
        Raw,
        Fp16,
        Bf16,
        Uniform,
        TopK,
        RandomK,
        Ecsq,
        Nmse,
        Predict,
        Hadamard,
        Rotation,
        PowerSGD,
        Sketch,
        Modular,
        Dither,
        QSGD,
        TernGrad,
        STC,
        Fp8,
        Nf4,
        Lossless,
    )
}
_WRAPPERS: Final[Mapping[str, type[Wrapper]]] = {c.id: c for c in (ErrorFeedback, EF21, DGC)}
_ALIASES: Final[Mapping[str, str]] = {
    "int8": "uniform:8",
    "int4": "uniform:4",
    "int2": "uniform:2",
    "sign": "uniform:1",
}
_LONGEST: Final = 4096
_SAMPLE: Final = Spec((TensorSpec("sample", (8, 8)),))


class Row(NamedTuple):
    """What there is to know about a codec. Laws are "yes", "no" or the option that makes them hold."""

    id: str
    about: str
    options: tuple[Option, ...]
    unbiased: str
    summable: str
    contractive: str
    stateful: str


@lru_cache(256)
def parse(text: str) -> Wrapper | Chain | Stage:
    """The codec that ``text`` describes, always one that finishes the job. Raises CodecError."""
    if len(text) > _LONGEST:
        raise CodecError(f"Expected a codec's text of at most {_LONGEST} characters, got {len(text)}.")
    names = [name.strip() for name in text.split("+")]
    wrapper, options = _given(names[0])
    wrapped = len(names) > 1 and wrapper in _WRAPPERS
    stages = [_stage(name, text) for name in names[wrapped:]]
    if not finishes(stages[-1]):
        stages.append(Raw())
    codec = stages[0] if len(stages) == 1 else Chain(tuple(stages))
    return read(_WRAPPERS[wrapper], options, codec) if wrapped else codec


def to_json(codec: Codec) -> str:
    """A codec's configuration as JSON."""
    return json.dumps(_plain(codec))


def from_json(text: str) -> Codec:
    """Inverse of ``to_json``. Raises CodecError."""
    if len(text) > _LONGEST:
        raise CodecError(f"Expected a codec's JSON of at most {_LONGEST} characters, got {len(text)}.")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CodecError(f"Expected a codec as JSON, got {text[:80]!r}: {error}.") from error
    codec: Codec = _built(value)
    return codec


def ids() -> tuple[str, ...]:
    """All codec ids this installation can encode and decode, sorted: what a device tells a server."""
    return tuple(sorted([*_STAGES, *_WRAPPERS, Chain.id]))


def ids_of(codec: Codec) -> frozenset[str]:
    """The ids of a codec and of all its parts: what a device must know to use it."""
    return frozenset({codec.id}.union(*(ids_of(inner) for inner in _parts(codec))))


def stages(codec: Codec) -> tuple[Stage, ...]:
    """The stages that a codec is made of, whatever is around them."""
    return (codec,) if isinstance(codec, Stage) else tuple(s for inner in _parts(codec) for s in stages(inner))


def describe() -> tuple[Row, ...]:
    """One row per name that may stand in a codec's text, sorted."""
    rows = [
        Row(
            kind.id,
            _about(kind),
            options_of(kind),
            _law(kind, "unbiased"),
            _law(kind, "commutes_with_sum"),
            _law(kind, "contractive"),
            _yes(bool(kind().init(_SAMPLE))),
        )
        for kind in _STAGES.values()
    ]
    for wrapper in _WRAPPERS.values():
        around = wrapper(Raw())
        unbiased, summable = ("as its chain" if law else "no" for law in (around.unbiased, around.commutes_with_sum))
        rows.append(Row(wrapper.id, _about(wrapper), options_of(wrapper), unbiased, summable, "no", "yes"))
    return tuple(sorted(rows))


def _given(name: str) -> tuple[str, str]:
    """Id and options as they stand in a text."""
    given, _, options = (part.strip() for part in name.partition(":"))
    return given, options


def _stage(name: str, text: str) -> Stage:
    given, options = _given(name)
    if not given:
        raise CodecError(f"Expected codecs joined by '+', such as 'ef+topk:0.01+int8', got {text!r}.")
    if given in _WRAPPERS:
        raise CodecError(f"Expected '{given}' first, once, and followed by '+' and a chain, got {text!r}.")
    if given in _ALIASES:
        given, _, fixed = _ALIASES[given].partition(":")
        options = f"{fixed},{options}" if options else fixed
    if given not in _STAGES:
        raise CodecError(f"Unknown codec '{given}' in {text!r}. {closest(given, [*_STAGES, *_ALIASES, *_WRAPPERS])}")
    return read(_STAGES[given], options)


def _parts(codec: Codec) -> tuple[Codec, ...]:
    if isinstance(codec, Wrapper):
        return (codec.inner,)
    return codec.stages if isinstance(codec, Chain) else ()


def _plain(codec: Codec) -> dict[str, Any]:
    if isinstance(codec, Stage):
        return {"id": codec.id, **values_of(codec)}
    options = values_of(codec) if isinstance(codec, Wrapper) else {}
    return {"id": codec.id, **options, "parts": [_plain(inner) for inner in _parts(codec)]}


def _built(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise CodecError(f"Expected a JSON object with an 'id', got {value!r}.")
    given = {k: v for k, v in value.items() if k != "id"}
    if value["id"] in _STAGES:
        return build(_STAGES[value["id"]], given)
    if value["id"] not in ids():
        raise CodecError(f"Unknown codec '{value['id']}'. {closest(value['id'], ids())}")
    listed = given.pop("parts", None)
    if not isinstance(listed, list) or (given and value["id"] == Chain.id):
        raise CodecError(f"Expected only 'parts', a list of codecs, in '{value['id']}', got {sorted(value)}.")
    parts = tuple(_built(inner) for inner in listed)
    if value["id"] == Chain.id:
        return Chain(parts)
    if len(parts) != 1:
        raise CodecError(f"Expected one codec inside '{value['id']}', got {len(parts)}.")
    return build(_WRAPPERS[value["id"]], given, parts[0])


def _about(kind: type) -> str:
    return (kind.__doc__ or "").split("\n", 1)[0]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _law(kind: type[Stage], law: str) -> str:
    """How ``law`` depends on the options: tried with the defaults, and with each switch and word turned."""
    holds = bool(getattr(kind(), law))
    for option in options_of(kind):
        words = option.kind if isinstance(option.kind, tuple) else ("true", "false") if option.kind is bool else ()
        turned = {word: bool(getattr(kind(**{option.name: option.read(word)}), law)) for word in words}
        if len(set(turned.values())) > 1:
            return f"with {option.name}={next(word for word, so in turned.items() if so)}"
    return _yes(holds)


for _kind in (*_STAGES.values(), *_WRAPPERS.values()):
    options_of(_kind)  # raises TypeError for an option without a text form
for _alias in _ALIASES:
    parse(_alias)
