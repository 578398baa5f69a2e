"""``fedpress bench codecs``: what codecs make of real updates, in bits, error and time.

Every codec is taken through recorded updates (``benchmarks.updates``), *on* one of two things:

    loop    what a codec's last stages see in a run: a bare codec encodes what was seen in the recorded run; one with
            feedback, a prediction or any memory goes through the recorded deltas with its own, from the first round on
    raw     deltas as training left them, each as if it were the first

*NMSE* is squared error over squared norm, of what the last stages saw. *Bound* is the fewest bits per parameter that
any memoryless code of these very numbers needs at that error (``benchmarks.rate_distortion``); a codec with contexts
may do with less. Early rounds are gone through and not measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from fedpress.client.probe import Encoding
from fedpress.compression import registry
from fedpress.compression.codec import Codec, Context, State
from fedpress.compression.stream import Stream
from fedpress.params import Spec, Tensors, flatten
from fedpress.simulations import units
from fedpress.simulations.benchmarks.charts import rate_distortion
from fedpress.simulations.benchmarks.rate_distortion import Bound, bound
from fedpress.simulations.benchmarks.speed import Speed, enlarged, speed
from fedpress.simulations.benchmarks.updates import Update, Updates
from fedpress.simulations.tap import Passed, bare, passed

On: TypeAlias = Literal["loop", "raw"]

#: What each codec is measured as; one that is not here, as its name alone.
CHAINS: Final[Mapping[str, Sequence[str]]] = {
    "raw": (),
    "uniform": ("int8", "int4", "int2", "sign"),
    "topk": ("topk:0.01+int8", "topk:0.05+int8"),
    "randomk": ("randomk:0.05+int8",),
    "ecsq": (
        *(f"ecsq:{rate}" for rate in (0.5, 1, 2, 3, 4, 6, 8)),
        *(f"ecsq:{rate},model=static" for rate in (1, 2, 4, 8)),
    ),
    "ef": ("ef:0.9+predict:0.5+nmse:0.4", "ef:0.9+predict:0.5+ecsq:6"),
    "ef21": ("ef21+ecsq:4", "ef21+ecsq:8"),
    "dgc": ("dgc:0.7+ecsq:6", "dgc+topk:0.01+int8"),
    "rotation": tuple(f"rotation:{bits},scale=mse" for bits in (1, 2, 3, 4)),
    "hadamard": ("hadamard+int4",),
    "sketch": ("sketch+int8",),
    **dict.fromkeys(("chain", "predict"), ()),
}
#: What throughput is of unless something is named: the defaults of both directions, and some to compare with.
FAST: Final = (
    "ef:0.9+predict:0.5+nmse:0.4",
    "ef+dither:2.85",
    "nmse:0.2,ladder=true",
    "ecsq:4,model=static",
    "int8",
    "topk:0.01+int8",
    "fp16",
)
_TIMES: Final = ("encode,\nx copy", "\nx zstd-3", "decode + fold,\nx copy", "\nx zstd-3", "zstd-3,\nbits")
#: A share of the rounds, at the beginning.
_UNMEASURED: Final = 0.25


@dataclass(frozen=True)
class Row:
    """One codec. ``bits``, ``bound``: per parameter; ``replayed``: with its own memory, round after round."""

    codec: str
    replayed: bool
    bits: float
    nmse: float
    bound: float
    speed: Speed


def chains() -> list[str]:
    """What is measured unless something is named: everything in the registry."""
    return [text for name in registry.ids() for text in CHAINS.get(name, (name,))]


def measure(
    texts: Sequence[str], updates: Updates, on: On, tick: Callable[[str], object] = lambda _: None
) -> tuple[list[Row], Bound]:
    """A row per codec, and the bound of what bare codecs are given. ``tick`` hears each codec before its turn."""
    tick("rate-distortion bound")
    shared = bound(_pooled([u.seen if on == "loop" else u.delta for u in _measured(updates)]))
    rows = []
    for text in texts:
        codec = registry.parse(text)
        tick(codec.text)
        rows.append(_row(codec, updates, on, shared))
    return rows, shared


def throughput(
    texts: Sequence[str], updates: Updates, size: int, tick: Callable[[str], object] = lambda _: None
) -> list[tuple[str, Speed]]:
    """Each codec's speed on ``size`` parameters with the recorded updates' values."""
    delta, step = enlarged(updates, size)
    found = []
    for text in texts:
        codec = registry.parse(text)
        tick(f"{codec.text} at {units.scaled(size, '')}")
        encoding = Encoding(codec, delta, codec.init(Spec.of(delta)), Context(1, 1, step), Stream(1))
        found.append((codec.text, speed(encoding, passed(encoding).arrived)))
    return found


def table(rows: Sequence[Row], updates: Updates, on: On) -> Table:
    """Rows side by side."""
    title = f"{updates.task}, {updates.spec.size} parameters, on: {on}"
    out = Table("codec", title=title, title_justify="left")
    for name in ("bits", "NMSE", "bound", "x bound", *_TIMES):
        out.add_column(name, justify="right")
    for row in rows:
        if row.nmse > 0:
            measured = [f"{row.nmse:.3g}", f"{row.bound:.3g}", f"{row.bits / row.bound:.3f}" if row.bound else "-"]
        else:
            measured = ["0", "-", "-"]
        out.add_row(escape(_name(row)), f"{row.bits:.3g}", *measured, *_times(row.speed))
    out.caption = "* replayed with its own memory. zstd-3: on a byte per decoded value, or (fp32) on the numbers."
    return out


def throughput_table(found: Sequence[tuple[str, Speed]]) -> Table:
    """Bytes of float32 a second."""
    title = f"{units.scaled(found[0][1].parameters, '')} parameters, bytes of float32, one thread"
    out = Table("codec", title=title, title_justify="left")
    for name in ("bits", "encode", "decode + fold", *_TIMES):
        out.add_column(name, justify="right")
    for text, s in found:
        rates = [f"{units.size(s.rate(seconds))}/s" for seconds in (s.encode, s.decode)]
        out.add_row(escape(text), f"{8 * s.payload / s.parameters:.3g}", *rates, *_times(s))
    return out


def save(
    rows: Sequence[Row],
    shared: Bound,
    updates: Updates,
    on: On,
    out: Path,
    throughputs: Sequence[tuple[str, Speed]] = (),
) -> list[Path]:
    """Write all that was measured as JSON and the drawing as SVG and PNG; their paths."""
    stem = out / f"codecs-{updates.task}-{on}"
    about = {"task": updates.task, "parameters": updates.spec.size, "loop": updates.codec, "on": on}
    data = stem.with_name(f"{stem.name}.json")
    large = [{"codec": text, **asdict(measured)} for text, measured in throughputs]
    found = {**about, "rows": [asdict(row) for row in rows], "throughput": large}
    data.write_text(json.dumps(found, indent=2), encoding="utf-8")
    points = [(_name(row), row.bits, row.nmse) for row in rows if row.nmse > 0]
    return [data, *rate_distortion(points, shared, stem)]


def _name(row: Row) -> str:
    return f"{row.codec} *" if row.replayed else row.codec


def _row(codec: Codec, updates: Updates, on: On, shared: Bound) -> Row:
    replayed = on == "loop" and (not bare(codec) or len(codec.init(updates.spec)) > 0)
    measured = {id(u) for u in _measured(updates)}
    states: dict[str, State] = {}
    counted: list[Passed] = []
    for u in updates.rows:
        tensors = u.seen if on == "loop" and not replayed else u.delta
        state = states.get(u.client, codec.init(updates.spec)) if replayed else codec.init(updates.spec)
        encoding = Encoding(codec, tensors, state, Context(u.seed, u.round, u.step), Stream.of(u.client, u.round))
        if replayed or id(u) in measured:
            result = passed(encoding)
            states[u.client] = result.state
        if id(u) in measured:
            counted.append(result)
    nmse = float(np.mean([one.nmse for one in counted]))
    limit = bound(_pooled([one.seen for one in counted])) if replayed else shared
    return Row(
        codec=codec.text,
        replayed=replayed,
        bits=8 * float(np.mean([len(one.payload) for one in counted])) / updates.spec.size,
        nmse=nmse,
        bound=limit.bits(nmse) if nmse > 0 else 0.0,
        speed=speed(encoding, counted[-1].arrived),
    )


def _measured(updates: Updates) -> list[Update]:
    """Those of later rounds in which anything changed."""
    last = max(u.round for u in updates.rows)
    return [u for u in updates.rows if u.round > _UNMEASURED * last and any(np.any(a) for a in u.delta.values())]


def _pooled(many: Sequence[Tensors]) -> NDArray[np.float32]:
    """All numbers, each update's over its own root mean square."""
    vectors = [flatten(one) for one in many]
    return np.concatenate([v / np.sqrt(np.mean(np.square(v, dtype=np.float64))).astype(np.float32) for v in vectors])


def _times(s: Speed) -> list[str]:
    ratios = (s.encode / s.copy, s.encode / s.zstd_encode, s.decode / s.copy, s.decode / s.zstd_decode)
    kind = "" if s.zstd_symbols else " fp32"
    return [*(f"{ratio:.3g}" for ratio in ratios), f"{8 * s.zstd_payload / s.parameters:.3g}{kind}"]
