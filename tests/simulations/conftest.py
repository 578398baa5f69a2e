"""A synthetic run: plausible, deterministic, on disk as a real one would be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fedpress.simulations.records import ROUNDS_FILE, ClientRecord, RoundRecord
from fedpress.simulations.results import Summary, curve

PARAMETERS = 50_890
NAMES = tuple(f"client-{i:03d}" for i in range(10))


def rounds_of(names: Sequence[str], count: int, ratio: tuple[float, float], seed: int) -> list[RoundRecord]:
    """Saturating curves with a little deterministic noise; every client takes part in every round."""

    def noise(*at: int) -> float:
        return math.sin(12.9898 * (sum((i + 1) * 78.233 * v for i, v in enumerate(at)) + seed)) * 0.5

    records = [RoundRecord(0, seconds=0.02, elapsed=0.02, metrics={"accuracy": 0.103, "loss": 2.31})]
    elapsed, full = 0.02, 4 * PARAMETERS
    for number in range(1, count + 1):
        reached = 1 - math.exp(-number / 6)
        clients = {}
        for i, name in enumerate(names):
            clients[name] = ClientRecord(
                examples=40 + 37 * ((i * 7) % 10),
                loss=2.0 * math.exp(-number / 7) + 0.1 + 0.05 * noise(i, number),
                bytes_up=int(full / ratio[0] * (1 + 0.1 * noise(i, number))),
                bytes_down=int(full / ratio[1] * (4 if number == 1 else 1)),
                metrics={"accuracy": min(1.0, 0.1 + 0.8 * reached + 0.1 * noise(i, 3) + 0.01 * noise(i, number))},
                train_seconds=0.35 + 0.1 * noise(i, number, 5),
                encode_seconds=0.03,
            )
        seconds = 0.62 + 0.05 * noise(number)
        elapsed += seconds
        total = sum(c.examples for c in clients.values())
        records.append(
            RoundRecord(
                round=number,
                seconds=seconds,
                elapsed=elapsed,
                cohort=len(names),
                updates=len(names),
                train_loss=sum(c.examples * (c.loss or 0.0) for c in clients.values()) / total,
                metrics={
                    "accuracy": 0.1 + 0.86 * reached + 0.012 * noise(number, 2),
                    "loss": 2.2 * math.exp(-number / 6) + 0.12,
                },
                client_metrics={"accuracy": sum(c.examples * c.metrics["accuracy"] for c in clients.values()) / total},
                bytes_up=sum(c.bytes_up for c in clients.values()),
                bytes_up_uncompressed=full * len(names),
                bytes_down=sum(c.bytes_down for c in clients.values()),
                bytes_down_uncompressed=full * len(names),
                clients=clients,
            )
        )
    return records


def write_run(
    place: Path,
    names: Sequence[str] = NAMES,
    count: int = 30,
    ratio: tuple[float, float] = (54.0, 4.4),
    seed: int = 0,
    baseline_accuracy: float | None = None,
    plan: str = '[run]\nname = "demo"\n',
) -> Path:
    """A run's directory: plan.toml, rounds.jsonl, summary.json."""
    place.mkdir(parents=True)
    rounds = rounds_of(names, count, ratio, seed)
    (place / "plan.toml").write_text(plan, encoding="utf-8")
    (place / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in rounds), encoding="utf-8")
    accuracies = curve(rounds)
    best = max(accuracies, key=lambda at: at[1])
    Summary(
        name="demo",
        task="digits",
        strategy="fedavg",
        rounds=count,
        seconds=rounds[-1].elapsed,
        bytes_up=sum(r.bytes_up for r in rounds),
        bytes_up_uncompressed=sum(r.bytes_up_uncompressed for r in rounds),
        bytes_down=sum(r.bytes_down for r in rounds),
        bytes_down_uncompressed=sum(r.bytes_down_uncompressed for r in rounds),
        upload_codec="ef+topk:0.02+int8",
        download_codec="int8",
        parameters=PARAMETERS,
        clients=len(names),
        engine="processes",
        seed=seed,
        model="5f" * 32,
        accuracy=accuracies[-1][1],
        best_accuracy=best[1],
        best_round=best[0],
        personal_accuracy=0.91,
        baseline_accuracy=baseline_accuracy,
        wire_up=1_130_000,
        wire_down=14_000_000,
    ).write(place)
    return place


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run("demo", names=..., ...)``: a synthetic run in a fresh directory."""
    return lambda name, **options: write_run(tmp_path / name, **options)
