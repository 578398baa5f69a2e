"""What is kept of each round, typed: one ``RoundRecord`` is one line of ``rounds.jsonl``.

Bytes are payload bytes. *Uncompressed* is what fp32 FedAvg would have sent for the same updates and the same model
downloads: 4 bytes per parameter each. Lines are strict JSON: a loss or metric that is NaN or infinite is written as
null and read as absent. Keys that this version does not know are ignored, so that older readers open newer runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from fedpress.errors import DataError
from fedpress.server.spread import Spread
from fedpress.server.watch import CLIENTS_LOSS, SERVER_LOSS, STILL, RunWarning

ROUNDS_FILE: Final = "rounds.jsonl"
#: Clients of which three are the worst tenth.
_ENOUGH: Final = 30


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite_only(metrics: Any) -> Any:
    if not isinstance(metrics, Mapping):
        return metrics
    return {k: v for k, v in metrics.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}


Measure = Annotated[float | None, AfterValidator(_finite)]
Metrics = Annotated[Mapping[str, float], BeforeValidator(_finite_only)]


@dataclass(frozen=True)
class ClientRecord:
    """One client in one round. ``fate``: ``counted``, or what became of its update instead. ``staleness``: how many
    versions late each of its counted updates was; it may have given two, and bytes, seconds and energies are of both.
    ``metrics``: over so many examples as it ``held_out``. ``given`` and ``lost``: energies (sums of squares) of what
    its codec was given, with what feedback added, and of what did not arrive of that; by its own account."""

    fate: str = "counted"
    staleness: tuple[int, ...] = ()
    examples: int = 0
    loss: Measure = None
    bytes_up: int = 0
    bytes_down: int = 0
    metrics: Metrics = field(default_factory=dict)
    held_out: int = 0
    train_seconds: float = 0.0
    encode_seconds: float = 0.0
    given: float = 0.0
    lost: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class RoundRecord:
    """One line of ``rounds.jsonl``. Round 0 is the initial model's evaluation: no clients, no bytes.

    ``metrics`` are the server's, of the model *after* this round; ``client_metrics`` are example-weighted means of what
    clients reported on the model that *arrived*, which is the one after the round before, and ``client_accuracy`` is
    the spread of their accuracies, every client counting once. What a client measures is the model it would use: its
    personal one, where the strategy has one. ``not_finite`` names metrics that were NaN or infinite, as
    ``metrics.loss``. ``diverged``: how many declined because training gave no finite numbers. ``epsilon``: the most
    that anybody has spent so far. Under central privacy, and with ``privacy.min_cohort``, nothing is written down of
    single clients. An ``evaluation`` is the last line, if any: clients fetched the final model and measured it; nobody
    trained.

    Fidelity is the share of the energy (sum of squares) of what a codec was given that arrives; what feedback adds is
    given too, and with feedback what one payload loses a later one carries. ``fidelity_up``: of the counted updates
    together, as devices report it. ``fidelity_aggregate``: of their mean, an estimate, because no server sees what was
    lost: errors of clients are taken for independent of each other and of what arrived. Where clients lose the same
    parts of similar updates, it says too much. ``fidelity_down``: of the new version's payload, a change of the one
    before, or a whole model. None where nothing was given, or privacy does not let it out. All three are of weights,
    which are coded apart from statistics and frozen tensors. ``moved``: the L2 norm of the weights' change from the
    version before to the new one over the former's, on the server or as devices see it, whichever is less.
    """

    round: int
    seconds: float = 0.0
    elapsed: float = 0.0
    cohort: int = 0
    updates: int = 0
    late: int = 0
    rejected: int = 0
    declined: int = 0
    diverged: int = 0
    train_loss: Measure = None
    metrics: Metrics = field(default_factory=dict)
    client_metrics: Metrics = field(default_factory=dict)
    client_accuracy: Spread | None = None
    not_finite: tuple[str, ...] = ()
    bytes_up: int = 0
    bytes_up_uncompressed: int = 0
    bytes_down: int = 0
    bytes_down_uncompressed: int = 0
    fidelity_up: Measure = None
    fidelity_aggregate: Measure = None
    fidelity_down: Measure = None
    moved: Measure = None
    epsilon: float = 0.0
    warnings: tuple[RunWarning, ...] = ()
    clients: Mapping[str, ClientRecord] = field(default_factory=dict)
    evaluation: bool = False

    @property
    def staleness(self) -> list[int]:
        """How many versions late the counted updates were, the latest last."""
        return sorted(late for client in self.clients.values() for late in client.staleness)

    @classmethod
    def from_json(cls, line: str | bytes) -> RoundRecord:
        """Inverse of ``to_json``. Raises pydantic's ValidationError, a ValueError."""
        return _ROUND.validate_json(line, strict=True)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> RoundRecord:
        """From plain values, as ``from_json``."""
        return _ROUND.validate_python(dict(table))

    def to_json(self) -> str:
        """One line of strict JSON, without its newline."""
        return _ROUND.dump_json(self).decode()


_ROUND: Final = TypeAdapter(RoundRecord)


def read_rounds(run_dir: Path) -> list[RoundRecord]:
    """The rounds of a run, by number; of a round that was recorded twice, around a crash, the later record.

    A last line without its newline that does not parse is what a crash leaves of a write, and is ignored. Any other
    broken line raises DataError with its number.
    """
    path = run_dir / ROUNDS_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"Expected a run in '{run_dir}', cannot read {path.name}: {error}.") from error
    rounds: dict[int, RoundRecord] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = RoundRecord.from_json(line)
        except ValidationError as error:
            if number == len(lines):
                break
            raise DataError(f"Expected a round in line {number} of '{path}'. {first_fault(error)}") from error
        rounds[record.round] = record
    return [rounds[number] for number in sorted(rounds)]


def curve(rounds: Iterable[RoundRecord], metric: str = "accuracy") -> list[tuple[int, float]]:
    """(round, value) of a metric of the global model: the server's where it evaluated, else what clients reported.

    Clients measure the model that arrives in round r, which is the one after round r - 1, and is filed there.
    """
    rounds = list(rounds)
    served = [(r.round, r.metrics[metric]) for r in rounds if metric in r.metrics]
    return served or [(r.round - 1, r.client_metrics[metric]) for r in rounds if metric in r.client_metrics]


def on_clients(rounds: Iterable[RoundRecord], metric: str = "accuracy") -> bool:
    """What ``curve`` gives was measured by clients alone: the server holds no whole model, or does not measure it."""
    rounds = list(rounds)
    return bool(curve(rounds, metric)) and not any(metric in r.metrics for r in rounds)


def own(rounds: Iterable[RoundRecord], clients: int) -> dict[int, Spread]:
    """The spread of clients' accuracies on their own data, by the round whose model they measured (see ``curve``).

    Without rounds that neither all ``clients`` measured nor ``_ENOUGH``: who they were would be most of what it shows.
    """
    measured = [(r.round - 1, r.client_accuracy) for r in rounds if r.client_accuracy is not None]
    return {round_: spread for round_, spread in measured if spread.clients >= min(clients, _ENOUGH)}


def stale(rounds: Iterable[RoundRecord]) -> bool:
    """An update counted that was of an older version than the newest."""
    return any(late > 0 for r in rounds for late in r.staleness)


def trained(rounds: Iterable[RoundRecord]) -> list[RoundRecord]:
    """The rounds in which clients trained: neither the initial evaluation nor the final one."""
    return [r for r in rounds if r.round and not r.evaluation]


def loss_is_lost(rounds: Iterable[RoundRecord]) -> bool:
    """The last loss of the model that was measured is NaN or infinite: the server's or, where it measures none, that of
    clients, if they had any before."""
    rounds = list(rounds)
    served = [r for r in rounds if "loss" in r.metrics or SERVER_LOSS in r.not_finite]
    if served:
        return SERVER_LOSS in served[-1].not_finite
    told = [r for r in rounds if "loss" in r.client_metrics or CLIENTS_LOSS in r.not_finite]
    return bool(told) and "loss" not in told[-1].client_metrics and any("loss" in r.client_metrics for r in told)


def never_moved(rounds: Iterable[RoundRecord]) -> bool:
    """Clients trained, and the model that they share is still the first one."""
    moved = [r.moved for r in trained(rounds) if r.updates and r.moved is not None]
    return bool(moved) and max(moved) < STILL


def latest(rounds: Iterable[RoundRecord]) -> dict[str, ClientRecord]:
    """Each client's last record that carries metrics (its last record at all if none does), clients by name."""
    found: dict[str, ClientRecord] = {}
    for record in rounds:
        for name, client in record.clients.items():
            if client.metrics or name not in found or not found[name].metrics:
                found[name] = client
    return dict(sorted(found.items()))


def first_fault(error: ValidationError) -> str:
    """The first fault of a validation, with the key it is about."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{fault['msg']}{f' ({where})' if where else ''}."
