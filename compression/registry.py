"""Every codec by its id, and the one-line text that plans, tickets and the command line use.

    ef+topk:0.01+uniform:4,stochastic=true

Stages stand in the order in which they encode, joined by ``+``. ``ef`` stands first and wraps all to its right. A
chain that would leave something unsent is finished with ``raw``. Options: see ``fedpress.compression.options``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from fedpress.compression.chain import Chain, finishes
from fedpress.compression.codec import Codec
from fedpress.compression.ecsq import Ecsq
from fedpress.compression.feedback import ErrorFeedback
from fedpress.compression.half import Bf16, Fp16
from fedpress.compression.options import Option, build, options_of, read, values_of
from fedpress.compression.predict import Predict
from fedpress.compression.randomk import RandomK
from fedpress.compression.raw import Raw
from fedpress.compression.stage import Stage
from fedpress.compression.topk import TopK
from fedpress.compression.uniform import Uniform
from fedpress.errors import CodecError, closest
from fedpress.params import Spec, TensorSpec

_STAGES: Final[Mapping[str, type[Stage]]] = {c.id: c for c in (Raw, Fp16, Bf16, Uniform, TopK, RandomK, Ecsq, Predict)}
_ALIASES: Final[Mapping[str, str]] = {
    "int8": "uniform:8",
    "int4": "uniform:4",
    "int2": "uniform:2",
    "sign": "uniform:1",
}
_LONGEST: Final = 4096
_SAMPLE: Final = Spec((TensorSpec("sample", (2, 2)),))


class Row(NamedTuple):
    """What there is to know about a codec. Laws are "yes", "no" or the option that makes them hold."""

    id: str
    about: str
    options: tuple[Option, ...]
    unbiased: str
    summable: str
    stateful: str


@lru_cache(256)
def parse(text: str) -> ErrorFeedback | Chain | Stage:
    """The codec that ``text`` describes, always one that finishes the job. Raises CodecError."""
    if len(text) > _LONGEST:
        raise CodecError(f"Expected a codec's text of at most {_LONGEST} characters, got {len(text)}.")
    names = [name.strip() for name in text.split("+")]
    wrapped = len(names) > 1 and names[0] == ErrorFeedback.id
    stages = [_stage(name, text) for name in names[wrapped:]]
    if not finishes(stages[-1]):
        stages.append(Raw())
    codec = stages[0] if len(stages) == 1 else Chain(tuple(stages))
    return ErrorFeedback(codec) if wrapped else codec


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
    return tuple(sorted([*_STAGES, Chain.id, ErrorFeedback.id]))


def ids_of(codec: Codec) -> frozenset[str]:
    """The ids of a codec and of all its parts: what a device must know to use it."""
    return frozenset({codec.id}.union(*(ids_of(inner) for inner in _parts(codec))))


def describe() -> tuple[Row, ...]:
    """One row per name that may stand in a codec's text, sorted."""
    feedback = ErrorFeedback(Raw())
    rows = [
        Row(
            kind.id,
            _about(kind),
            options_of(kind),
            _law(kind, "unbiased"),
            _law(kind, "commutes_with_sum"),
            _yes(bool(kind().init(_SAMPLE))),
        )
        for kind in _STAGES.values()
    ]
    rows.append(Row(feedback.id, _about(ErrorFeedback), (), _yes(feedback.unbiased), "as its chain", "yes"))
    return tuple(sorted(rows))


def _stage(name: str, text: str) -> Stage:
    given, _, options = (part.strip() for part in name.partition(":"))
    if not given:
        raise CodecError(f"Expected codecs joined by '+', such as 'ef+topk:0.01+int8', got {text!r}.")
    if given == ErrorFeedback.id:
        raise CodecError(f"Expected 'ef' first, once, without options and followed by '+', got {text!r}.")
    if given in _ALIASES:
        given, _, fixed = _ALIASES[given].partition(":")
        options = f"{fixed},{options}" if options else fixed
    if given not in _STAGES:
        raise CodecError(
            f"Unknown codec '{given}' in {text!r}. {closest(given, [*_STAGES, *_ALIASES, ErrorFeedback.id])}"
        )
    return read(_STAGES[given], options)


def _parts(codec: Codec) -> tuple[Codec, ...]:
    if isinstance(codec, ErrorFeedback):
        return (codec.inner,)
    return codec.stages if isinstance(codec, Chain) else ()


def _plain(codec: Codec) -> dict[str, Any]:
    if isinstance(codec, Stage):
        return {"id": codec.id, **values_of(codec)}
    return {"id": codec.id, "parts": [_plain(inner) for inner in _parts(codec)]}


def _built(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise CodecError(f"Expected a JSON object with an 'id', got {value!r}.")
    given = {k: v for k, v in value.items() if k != "id"}
    if value["id"] in _STAGES:
        return build(_STAGES[value["id"]], given)
    if value["id"] not in ids():
        raise CodecError(f"Unknown codec '{value['id']}'. {closest(value['id'], ids())}")
    if set(given) != {"parts"} or not isinstance(given["parts"], list):
        raise CodecError(f"Expected only 'parts', a list of codecs, in '{value['id']}', got {sorted(given)}.")
    parts = tuple(_built(inner) for inner in given["parts"])
    if value["id"] == Chain.id:
        return Chain(parts)
    if len(parts) != 1:
        raise CodecError(f"Expected one codec inside 'ef', got {len(parts)}.")
    return ErrorFeedback(parts[0])


def _about(kind: type) -> str:
    return (kind.__doc__ or "").split("\n", 1)[0]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _law(kind: type[Stage], law: str) -> str:
    """How ``law`` depends on the options: tried with the defaults, and with each switch turned."""
    holds = bool(getattr(kind(), law))
    for option in options_of(kind):
        if option.kind is bool:
            turned = kind(**{option.name: option.default == "false"})
            if bool(getattr(turned, law)) != holds:
                return f"with {option.name}=true"
    return _yes(holds)


for _kind in _STAGES.values():
    options_of(_kind)  # raises TypeError for an option without a text form
for _alias in _ALIASES:
    parse(_alias)
