"""What a run comes to: its ``Summary`` (``summary.json``), the ``Result`` all engines return, the closing table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from rich.table import Table
from rich.text import Text

from fedpress.errors import DataError
from fedpress.plan import Plan
from fedpress.server.journal import BEST_FILE
from fedpress.server.spread import spread
from fedpress.server.stopping import Standing
from fedpress.simulations import units
from fedpress.simulations.records import (
    ROUNDS_FILE,
    ClientRecord,
    Measure,
    RoundRecord,
    curve,
    first_fault,
    latest,
    loss_is_lost,
    never_moved,
    on_clients,
    read_rounds,
    trained,
)

__all__ = [
    "REPORT_FILE",
    "ROUNDS_FILE",
    "SUMMARY_FILE",
    "ClientRecord",
    "Result",
    "RoundRecord",
    "Summary",
    "curve",
    "latest",
    "read_rounds",
    "summarise",
    "table",
]

SUMMARY_FILE: Final = "summary.json"
REPORT_FILE: Final = "report.html"


@dataclass(frozen=True)
class Counted:
    """A warning that came up in a run: its ``kind``, the first ``round`` and in how many ``rounds``, its last text."""

    kind: str
    round: int
    rounds: int
    text: str


@dataclass(frozen=True)
class Fidelity:
    """Of a run's updates, their aggregate and its downloads: means over rounds, and the ``worst`` round's updates. See
    ``RoundRecord``."""

    up: Measure = None
    worst: Measure = None
    aggregate: Measure = None
    down: Measure = None


@dataclass(frozen=True)
class Summary:
    """``summary.json``. What a run has no value for is None here and absent there.

    ``personal_accuracy`` is the mean of what clients measured last on their own held-out data, ``personal_deviation``
    its standard deviation, ``personal_worst_decile`` the mean of the lowest tenth: every client counts once.
    ``seconds`` are virtual where there are ``wall_seconds``, which is what this machine took for the simulation.
    ``best_round``: the round whose model is best by ``stop.metric``, ``best_accuracy`` that model's accuracy and
    ``best_checkpoint`` its file in the run's directory. ``stopped``: why the run ended before its last round.
    ``failed``: why the run did not do its job, where it did not: the command line then ends with exit code 1.
    """

    name: str
    task: str
    strategy: str
    rounds: int
    seconds: float
    bytes_up: int
    bytes_up_uncompressed: int
    bytes_down: int
    bytes_down_uncompressed: int
    upload_codec: str
    download_codec: str
    parameters: int
    clients: int
    engine: str
    seed: int
    model: str
    accuracy: Measure = None
    best_accuracy: Measure = None
    best_round: int | None = None
    best_checkpoint: str | None = None
    stopped: str | None = None
    failed: str | None = None
    warnings: tuple[Counted, ...] = ()
    fidelity: Fidelity = Fidelity()
    personal_accuracy: Measure = None
    personal_deviation: Measure = None
    personal_worst_decile: Measure = None
    baseline_accuracy: Measure = None
    epsilon: Measure = None
    wire_up: int = 0
    wire_down: int = 0
    wall_seconds: Measure = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """Inverse of ``to_json``. Raises pydantic's ValidationError, a ValueError."""
        return _SUMMARY.validate_json(text, strict=True)

    @classmethod
    def read(cls, run_dir: Path) -> Summary:
        """The summary in a run's directory. Raises DataError."""
        path = run_dir / SUMMARY_FILE
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"Expected a finished run in '{run_dir}', cannot read {path.name}: {error}.") from error
        except ValidationError as error:
            raise DataError(f"Expected a summary in '{path}'. {first_fault(error)}") from error

    def to_json(self) -> str:
        """Indented strict JSON."""
        return _SUMMARY.dump_json(self, indent=2, exclude_none=True).decode() + "\n"

    def write(self, run_dir: Path) -> Path:
        """Write ``summary.json`` in a run's directory; its path."""
        path = run_dir / SUMMARY_FILE
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @property
    def virtual(self) -> bool:
        """Times are of a simulated clock."""
        return self.wall_seconds is not None

    @property
    def bits_up(self) -> float:
        """Bits per parameter of the mean update; 0 if nothing was sent."""
        return _bits(self.bytes_up, self.bytes_up_uncompressed)

    @property
    def bits_down(self) -> float:
        """Bits per parameter of the mean model download; 0 if nothing was sent."""
        return _bits(self.bytes_down, self.bytes_down_uncompressed)


_SUMMARY: Final = TypeAdapter(Summary)


@dataclass(frozen=True)
class Result:
    """What every engine returns."""

    run_dir: Path
    summary: Summary
    rounds: Sequence[RoundRecord]

    @classmethod
    def read(cls, run_dir: Path) -> Result:
        """The result of a finished run, from its directory. Raises DataError."""
        return cls(run_dir, Summary.read(run_dir), read_rounds(run_dir))


def summarise(
    plan: Plan,
    rounds: Sequence[RoundRecord],
    *,
    parameters: int,
    model: str,
    clients: int,
    engine: str,
    wire_up: int = 0,
    wire_down: int = 0,
    baseline: Summary | None = None,
    wall_seconds: float | None = None,
    ended: str = "",
    diverged: bool = False,
) -> Summary:
    """The summary of a run.

    ``parameters``: of the model that travels. ``model``: its content hash at the end. ``clients``: how many there were.
    ``wire_up`` and ``wire_down``: bytes of all messages with envelopes; inline, what they would be.
    ``baseline``: the uncompressed run of the same seed. ``wall_seconds``: of a run in virtual time.
    ``ended``: why it did. ``diverged``: because there were no finite numbers any more.
    """
    accuracies = curve(rounds)
    standing = Standing(plan.stop)
    for round_, value in curve(rounds, plan.stop.metric):
        standing = standing.after(round_, value)
    best_round = standing.best_round if standing.best_round >= 0 else None
    done = max((r.round for r in trained(rounds)), default=0)
    personal = spread([c.metrics["accuracy"] for c in latest(rounds).values() if "accuracy" in c.metrics])
    epsilons = [e for r in rounds for e in (r.epsilon, *(c.epsilon for c in r.clients.values())) if e > 0]
    return Summary(
        name=plan.run.name,
        task=Path(plan.task.name).stem,
        strategy=plan.strategy.name,
        rounds=done,
        seconds=max((r.elapsed for r in rounds), default=0.0),
        bytes_up=sum(r.bytes_up for r in rounds),
        bytes_up_uncompressed=sum(r.bytes_up_uncompressed for r in rounds),
        bytes_down=sum(r.bytes_down for r in rounds),
        bytes_down_uncompressed=sum(r.bytes_down_uncompressed for r in rounds),
        upload_codec=plan.upload.codec,
        download_codec=plan.download.codec,
        parameters=parameters,
        clients=clients,
        engine=engine,
        seed=plan.run.seed,
        model=model,
        accuracy=accuracies[-1][1] if accuracies else None,
        best_accuracy=dict(accuracies).get(best_round) if best_round is not None else None,
        best_round=best_round,
        best_checkpoint=BEST_FILE if best_round is not None else None,
        stopped=ended if ended and done < plan.run.rounds else None,
        failed=_failure(rounds, ended, diverged, bool(standing.reason)) or None,
        warnings=tuple(_counted(rounds)),
        fidelity=_fidelity(rounds),
        personal_accuracy=personal.mean if personal else None,
        personal_deviation=personal.deviation if personal else None,
        personal_worst_decile=personal.worst_decile if personal else None,
        baseline_accuracy=baseline.accuracy if baseline else None,
        epsilon=max(epsilons, default=None),
        wire_up=wire_up,
        wire_down=wire_down,
        wall_seconds=wall_seconds,
    )


def _failure(rounds: Sequence[RoundRecord], ended: str, diverged: bool, enough: bool) -> str:
    """Why the run did not do its job; "" where it did. ``enough``: it came to what the plan stops at."""
    because = f" ({ended})" if ended and diverged else ""
    if diverged:
        return f"The run diverged{because}. Lower train.lr, or set train.max_grad_norm."
    if not enough and not any(r.updates for r in trained(rounds)):
        return (
            f"Not one update was counted{f' ({ended})' if ended else ''}: the model is the one that the run began with."
        )
    if loss_is_lost(rounds):
        return "The last model's loss is NaN or infinite. Lower train.lr, or set train.max_grad_norm."
    if never_moved(rounds):
        return (
            "The model never moved, although clients trained. Raise train.lr, or set upload.codec and download.codec "
            "to finer codecs."
        )
    return ""


def _counted(rounds: Iterable[RoundRecord]) -> Iterable[Counted]:
    """Warnings by kind, in the order in which they came up."""
    found: dict[str, Counted] = {}
    for record in rounds:
        for warning in record.warnings:
            was = found.get(warning.kind, Counted(warning.kind, warning.round, 0, ""))
            found[warning.kind] = replace(was, rounds=was.rounds + 1, text=warning.text)
    return found.values()


def _fidelity(rounds: Iterable[RoundRecord]) -> Fidelity:
    """Means of the rounds that have a value."""
    rounds = trained(rounds)
    up = [r.fidelity_up for r in rounds if r.fidelity_up is not None]
    aggregate = [r.fidelity_aggregate for r in rounds if r.fidelity_aggregate is not None]
    down = [r.fidelity_down for r in rounds if r.fidelity_down is not None]
    return Fidelity(_mean(up), min(up, default=None), _mean(aggregate), _mean(down))


def _mean(values: Sequence[float]) -> float | None:
    return fsum(values) / len(values) if values else None


def table(result: Result) -> Table:
    """The closing table: accuracy and bytes against the uncompressed run, fidelity, rounds, time, where the report is;
    and what the run warns of."""
    s = result.summary
    rows = {
        "accuracy": _accuracy(s) + " on clients, by examples" * on_clients(result.rounds),
        "on clients' own data": _personal(s),
        "uploaded": _traffic(s.bytes_up, s.bytes_up_uncompressed),
        "downloaded": _traffic(s.bytes_down, s.bytes_down_uncompressed),
        "bits per parameter": f"{s.bits_up:.2f} up, {s.bits_down:.2f} down, of 32",
        "fidelity": fidelity_words(s.fidelity) or None,
        "with envelopes": f"{units.size(s.wire_up)} up, {units.size(s.wire_down)} down" if s.wire_up else None,
        "epsilon spent": f"{s.epsilon:.2f} at most" if s.epsilon is not None else None,
        "rounds": f"{s.rounds} with {s.clients} clients",
        "ended early": s.stopped,
        "best model": f"{s.best_checkpoint}, of round {s.best_round}" if s.best_checkpoint else None,
        "time": _time(s),
        "report": str(result.run_dir / REPORT_FILE),
    }
    out = Table(title=Text(f"{s.name}: {s.strategy} on {s.task}"), title_justify="left", show_header=False)
    out.add_column(style="bold", no_wrap=True)
    out.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            out.add_row(Text(name), Text(value))
    for warning in s.warnings:
        out.add_row(Text("warning"), Text(warning_words(warning)), style="yellow")
    if s.failed:
        out.add_row(Text("failed"), Text(s.failed), style="bold red")
    return out


def fidelity_words(f: Fidelity) -> str:
    """``up 52.0 % (worst round 31.0 %), aggregate 60.0 %, down 48.0 %``; "" where none is known."""
    worst = f" (worst round {units.share(f.worst)})" if f.worst is not None else ""
    parts = [f"up {units.share(f.up)}{worst}"] if f.up is not None else []
    parts += [f"aggregate {units.share(f.aggregate)}"] if f.aggregate is not None else []
    parts += [f"down {units.share(f.down)}"] if f.down is not None else []
    return ", ".join(parts)


def warning_words(warning: Counted) -> str:
    """Its text, and how often it came up."""
    since = f" Seen in {warning.rounds} rounds, first in round {warning.round}." if warning.rounds > 1 else ""
    return warning.text + since


def _accuracy(s: Summary) -> str:
    if s.accuracy is None:
        return "not measured"
    if s.baseline_accuracy is None:
        return units.share(s.accuracy)
    delta = units.points(s.accuracy - s.baseline_accuracy)
    return f"{units.share(s.accuracy)} (uncompressed {units.share(s.baseline_accuracy)}, {delta})"


def _personal(s: Summary) -> str | None:
    if s.personal_accuracy is None:
        return None
    parts = [units.share(s.personal_accuracy)]
    if s.personal_worst_decile is not None:
        parts.append(f"worst tenth {units.share(s.personal_worst_decile)}")
    if s.personal_deviation is not None:
        parts.append(f"deviation {units.points(s.personal_deviation).lstrip('+')}")
    return ", ".join(parts)


def _time(s: Summary) -> str:
    if s.wall_seconds is None:
        return units.duration(s.seconds)
    return f"{units.duration(s.seconds)} of virtual time, simulated in {units.duration(s.wall_seconds)}"


def _traffic(actual: int, uncompressed: int) -> str:
    return f"{units.size(actual)} of {units.size(uncompressed)}, {units.ratio(uncompressed, actual)}"


def _bits(actual: int, uncompressed: int) -> float:
    return 32 * actual / uncompressed if uncompressed else 0.0
