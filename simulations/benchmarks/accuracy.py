"""Accuracy with and without compression, on real data: ``python -m fedpress.simulations.benchmarks.accuracy digits
har``.

Each data set runs with each seed twice, inline: whole fp32 models both ways, and the compressed codecs below.
Accuracy is the server's, on held-out data, after the last round. Results are kept under ``--out``: what is there is
not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from fedpress.plan import load
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import SUMMARY_FILE, Summary
from fedpress.simulations.units import ratio, share

_SKEWED: Final = ("clients.count=10", "clients.partition=dirichlet", "clients.alpha=0.3")
#: Each data set's federated settings, found by hand on the uncompressed runs of seed 0.
SETTINGS: Final[Mapping[str, Sequence[str]]] = {
    "digits": (*_SKEWED, "run.rounds=40", "train.epochs=5", "train.lr=0.1"),
    "fashion-mnist": (*_SKEWED, "run.rounds=20", "train.lr=0.03", "train.momentum=0.9", "train.schedule=cosine"),
    "femnist": (
        "clients.partition=natural",
        "clients.count=105",
        "cohort.fraction=0.2",
        "download.mode=full",  # who comes every fifth round would need five deltas
        "run.rounds=60",
        "train.batch_size=16",
        "train.epochs=3",
        "train.lr=0.03",
        "train.momentum=0.9",
        "train.schedule=cosine",
    ),
    "har": (
        "clients.partition=natural",
        "clients.count=30",
        "run.rounds=30",
        "train.epochs=4",
        "train.lr=0.02",
        "train.momentum=0.9",
        "train.schedule=cosine",
    ),
}
ARMS: Final[Mapping[str, Sequence[str]]] = {
    "uncompressed": ("upload.codec=raw", "download.codec=raw", "download.mode=full"),
    "top 2 %": ("upload.codec=ef+topk:0.02+int8", "download.codec=int8"),
    "top 5 %": ("upload.codec=ef+topk:0.05+int8", "download.codec=int8"),
}
_ALL: Final = ("engine.name=inline", "evaluate.clients_every=0", "run.checkpoint_every=0")


def measure(out: Path, data: str, arm: str, seed: int, more: Sequence[str]) -> Summary:
    """One run's summary; the one that is there already, if any."""
    name = f"{data}-{arm.replace(' ', '-').replace('%', 'percent')}-{seed}"
    settings = (*_ALL, *SETTINGS[data], *ARMS[arm], *more)
    plan = load(None, [f"task.name={data}", f"run.out={out}", f"run.name={name}", f"run.seed={seed}", *settings])
    if (plan.directory / SUMMARY_FILE).exists():
        return Summary.read(plan.directory)
    return simulate(plan, fresh=True).summary


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--set", nargs="*", default=[], help="further keys of the plan, for all runs")
    options = parser.parse_args()
    table = Table("data set", "arm", "accuracy, mean", "lowest to highest", "upload", "download")
    rows: list[dict[str, object]] = []
    for data in options.data:
        for arm in ARMS:
            runs = [measure(options.out, data, arm, seed, options.set) for seed in options.seeds]
            scores = [run.accuracy or 0.0 for run in runs]
            up = ratio(sum(r.bytes_up_uncompressed for r in runs), sum(r.bytes_up for r in runs))
            down = ratio(sum(r.bytes_down_uncompressed for r in runs), sum(r.bytes_down for r in runs))
            spread = f"{share(min(scores))} to {share(max(scores))}"
            table.add_row(data, arm, share(statistics.mean(scores)), spread, up, down)
            rows.append({"data": data, "arm": arm, "accuracies": scores, "upload": up, "download": down})
    (options.out / "accuracy.json").write_text(json.dumps(rows, indent=2))
    Console().print(table)


if __name__ == "__main__":
    main()
