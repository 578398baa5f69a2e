"""``ecsq`` beside others' coders on the same real updates: ``make rivals``.

nncodec is the reference software of the ISO's neural-network coding standard (ISO/IEC 15938-17; DeepCABAC with
dependent quantisation). Its dependencies and ours do not mix, so it runs in an environment of its own
(``tests/rivals/nncodec_side.py``), once per update and in the same run: for each error wanted it says what it comes
nearest to, and ours is then given the largest step whose error is no larger than *theirs*. Deltas are taken as training
left them and each for itself: neither side knows another update or the model.

zstd-3 is given a byte per level, ours (quantisation and all) the update: see ``benchmarks.speed``.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from fedpress.client.probe import Encoding
from fedpress.compression import entropy
from fedpress.compression.codec import Context
from fedpress.compression.ecsq import Ecsq
from fedpress.compression.stream import Stream
from fedpress.errors import DataError
from fedpress.params import Spec, Tensors
from fedpress.simulations.benchmarks.speed import Speed, speed
from fedpress.simulations.benchmarks.updates import Updates, recorded
from fedpress.simulations.tap import passed

#: Squared error over squared norm.
WANTED: Final = (0.60, 0.44, 0.21, 0.072)
MODELS: Final = tuple(model for model in get_args(entropy.Model) if model != "auto")
_HALVINGS: Final = 12


@dataclass(frozen=True)
class Theirs:
    """What nncodec made of one update under one setting, coming as near to the NMSE ``wanted`` as a qp can."""

    setting: str
    wanted: float
    qp: int
    size: int
    nmse: float
    seconds: float


@dataclass(frozen=True)
class Pair:
    """One update by both. ``ours``: by model of the entropy stage, all at the same step and so at one ``nmse``."""

    theirs: Theirs
    nmse: float
    ours: dict[str, Speed]


def compare(update: Tensors, command: Sequence[str], folder: Path) -> list[Pair]:
    """An update (float32) by both, at every setting of theirs and every error wanted. Raises DataError."""
    return [_pair(update, point) for point in _theirs(update, command, folder)]


def widest(update: Tensors, nmse: float) -> float:
    """The largest rate of ``ecsq`` at which its error is no more than ``nmse``: to 0.1 %, as error rises with rate."""
    low, high = math.log2(2**-8), math.log2(2**5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if passed(_encoding(update, math.exp2(middle), "static")).nmse <= nmse:
            low = middle
        else:
            high = middle
    return math.exp2(low)


def against_nncodec(task: str, pairs: Sequence[Pair]) -> list[list[str]]:
    """Table rows, one per setting and error wanted: all of a task's updates together."""
    rows = []
    for (setting, wanted), some in _grouped(pairs).items():
        theirs, slow = sum(p.theirs.size for p in some), sum(p.theirs.seconds for p in some)
        ours = {model: [p.ours[model] for p in some] for model in MODELS}
        sizes = {model: sum(s.payload for s in ours[model]) for model in MODELS}
        parameters = sum(s.parameters for s in ours[MODELS[0]])
        worst = max(p.ours["context"].payload / p.theirs.size for p in some)
        rows.append(
            [
                *(task, setting, f"{wanted:.3g}", f"{np.mean([p.theirs.nmse for p in some]):.3f}"),
                *(f"{8 * theirs / parameters:.4f}", f"{np.mean([p.nmse for p in some]):.3f}"),
                *(f"{8 * size / parameters:.4f}" for size in sizes.values()),
                *(f"{size / theirs:.2f}" for size in (*sizes.values(), worst * theirs)),
                f"{parameters / slow / 1e6:.2f}",
                *(f"{slow / sum(s.encode for s in speeds):.0f}x" for speeds in ours.values()),
            ]
        )
    return rows


def against_zstd(task: str, pairs: Sequence[Pair]) -> list[list[str]]:
    """Table rows, one per error wanted: at the steps taken beside nncodec's first setting."""
    rows = []
    for some in _grouped([p for p in pairs if p.theirs.setting == pairs[0].theirs.setting]).values():
        ours = {model: [p.ours[model] for p in some] for model in MODELS}
        first = ours[MODELS[0]]
        size, seconds = sum(s.zstd_payload for s in first), sum(s.zstd_encode for s in first)
        rows.append(
            [
                *(task, f"{np.mean([p.nmse for p in some]):.3f}", f"{8 * size / sum(s.parameters for s in first):.4f}"),
                *(f"{sum(s.payload for s in speeds) / size:.2f}" for speeds in ours.values()),
                *(f"{seconds / sum(s.encode for s in speeds):.2f}x" for speeds in ours.values()),
            ]
        )
    return rows


def _theirs(update: Tensors, command: Sequence[str], folder: Path) -> list[Theirs]:
    path = folder / "update.npz"
    arrays: dict[str, Any] = dict(update)
    np.savez(path, **arrays)
    done = subprocess.run([*command, str(path), *map(str, WANTED)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(
            f"Expected measurements of '{shlex.join(command)}', which failed: {done.stderr.strip()[-2000:]}"
        )
    return [Theirs(**point) for point in json.loads(done.stdout)]


def _pair(update: Tensors, theirs: Theirs) -> Pair:
    rate = widest(update, theirs.nmse)
    ours = {}
    for model in MODELS:
        encoding = _encoding(update, rate, model)
        result = passed(encoding)
        ours[model] = speed(encoding, result.arrived)
    return Pair(theirs, result.nmse, ours)


def _encoding(update: Tensors, rate: float, model: entropy.Model) -> Encoding:
    codec = Ecsq(rate=rate, model=model)
    return Encoding(codec, update, codec.init(Spec.of(update)), Context(1, 1, None), Stream(1))


def _grouped(pairs: Sequence[Pair]) -> dict[tuple[str, float], list[Pair]]:
    found: dict[tuple[str, float], list[Pair]] = {}
    for pair in pairs:
        found.setdefault((pair.theirs.setting, pair.theirs.wanted), []).append(pair)
    return found


def _chosen(updates: Updates, on: str) -> list[Tensors]:
    """The updates of the round in the middle and of that at three quarters: the last ones may be nothing, where the
    learning rate falls to zero."""
    last = max(u.round for u in updates.rows)
    return [u.seen if on == "loop" else u.delta for u in updates.rows if u.round in (last // 2, 3 * last // 4)]


def _tables() -> tuple[Table, Table]:
    nncodec = Table("task", "nncodec's\nsetting", title="ecsq beside nncodec: bits per parameter", title_justify="left")
    bits = ("NMSE\nwanted", "its\nNMSE", "its\nbits", "our\nNMSE", *(f"bits,\n{m}" for m in MODELS))
    ratios = (*(f"of its,\n{m}" for m in MODELS), "worst,\ncontext")
    for name in (*bits, *ratios, "its M/s", *(f"speed,\n{m}" for m in MODELS)):
        nncodec.add_column(name, justify="right")
    nncodec.caption = (
        "worst: of a single update. M/s: parameters a second, in millions. speed: times nncodec's, encoding."
    )
    zstd = Table("task", title="ecsq beside zstd-3 on the same levels", title_justify="left")
    for name in ("NMSE", "zstd-3,\nbits", *(f"of its,\n{m}" for m in MODELS), *(f"speed,\n{m}" for m in MODELS)):
        zstd.add_column(name, justify="right")
    zstd.caption = "speed: times zstd-3's, encoding; ours quantises too."
    return nncodec, zstd


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nncodec", help="the command that measures nncodec on an update and errors wanted")
    parser.add_argument("--tasks", nargs="+", default=["digits", "fashion-mnist", "mnist"])
    parser.add_argument("--on", choices=("raw", "loop"), default="raw", help="deltas, or what codecs see in a run")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="where recorded updates are kept")
    options = parser.parse_args()
    tables = _tables()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            updates = _chosen(recorded(options.out, task, options.rounds, options.clients), options.on)
            command = shlex.split(options.nncodec)
            pairs = [pair for update in updates for pair in compare(update, command, Path(folder))]
            for table, rows in zip(tables, (against_nncodec(task, pairs), against_zstd(task, pairs)), strict=True):
                for row in rows:
                    table.add_row(*row)
    console = Console(width=200)
    for table in tables:
        console.print(table)


if __name__ == "__main__":
    main()
