"""What is written down of a round: the line of ``rounds.jsonl``, made from the store.

A round's record is of the leases that ended in it, whichever round they were handed out in. A client may have two: what
both cost is added up, what it says of itself is its last word. ``client_metrics`` are of the model that arrived with
the round: what came late measured an older one, and is left out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from typing import Any, Final, NamedTuple

from fedpress.compression.codec import Loss
from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import metrics_of
from fedpress.sections import Privacy
from fedpress.server.choice import Choice
from fedpress.server.leases import Fate, Lease
from fedpress.server.spread import spread, tenth
from fedpress.server.store import Store, Traffic
from fedpress.server.watch import CLIENTS_LOSS, SERVER

_SUMS: Final = ("staleness", "bytes_up", "bytes_down", "train_seconds", "encode_seconds", "given", "lost")


class Outcome(NamedTuple):
    """What a round came to, beside what is in the store: what the ``aggregate`` and the ``download`` of the new version
    were given and lost, and how far the model ``moved`` (``Versions.moved``). None: not known."""

    aggregate: Loss | None = None
    download: Loss | None = None
    moved: float | None = None


UNKNOWN: Final = Outcome()


@dataclass(frozen=True)
class Cover:
    """What of a record may leave the server: nothing of one client, or of fewer than ``least``; where ``noised``, no
    metric as clients reported it."""

    least: int = 1
    noised: bool = False

    @classmethod
    def of(cls, privacy: Privacy) -> Cover:
        """What a plan asks for."""
        return cls(max(1, privacy.min_cohort), privacy.mode == "central")

    def over(self, record: dict[str, Any], updates: Sequence[pb.Report], fresh: Sequence[pb.Report]) -> dict[str, Any]:
        """The record of a round with these updates, the ``fresh`` ones not late, without what may not leave."""
        if self == Cover():
            return record
        measured, fresh_measured = (sum(bool(report.held_out) for report in some) for some in (updates, fresh))
        hidden: dict[str, Any] = {"clients": {}, "epsilon": 0.0}  # the most that one client says is one client's
        if self.noised or len(updates) < self.least:
            hidden |= {"train_loss": None, "fidelity_up": None, "fidelity_aggregate": None}
        if self.noised or fresh_measured < self.least:
            hidden |= {"client_metrics": {}, "not_finite": []}
        if self.noised or tenth(measured) < self.least:  # the worst tenth would be of fewer
            hidden["client_accuracy"] = None
        return {**record, **hidden}


def round_record(
    store: Store,
    round_: int,
    spec: Spec,
    seconds: float,
    elapsed: float,
    cover: Cover = Cover(),
    outcome: Outcome = UNKNOWN,
) -> dict[str, Any]:
    """The line of ``rounds.jsonl`` for a round of training. Bytes are payload bytes, seconds the run's clock's."""
    return _record(store, round_, False, spec, seconds, elapsed, cover, outcome)


def with_metrics(record: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """A round's record with the server's metrics of its model. Those that are not finite are None, and named."""
    bad = [f"{SERVER}{name}" for name, value in metrics.items() if not isfinite(value)]
    finite = {name: value if isfinite(value) else None for name, value in metrics.items()}
    return {**record, "metrics": finite, "not_finite": sorted({*record["not_finite"], *bad})}


def diverged(store: Store, round_: int) -> bool:
    """Of the clients that declined a round, at least half did because training gave no finite numbers."""
    declined = [raw for lease, _, _, raw in store.reports(round_, False) if lease.fate is Fate.DECLINED]
    found = [isnan(pb.Report.FromString(raw).loss) for raw in declined]
    return bool(found) and 2 * sum(found) >= len(found)


def fidelity(loss: Loss | None) -> float | None:
    """The share of the energy that arrived; 0 where more was lost than there was, None where nothing was given."""
    return None if loss is None or loss.given <= 0 else max(0.0, 1.0 - loss.share)


def evaluation_record(
    store: Store, round_: int, spec: Spec, seconds: float, elapsed: float, cover: Cover = Cover()
) -> dict[str, Any]:
    """The last line: what clients measured on the last model, and what fetching it cost."""
    record = _record(store, round_, True, spec, seconds, elapsed, cover, UNKNOWN)
    return {**record, "round": round_ + 1, "evaluation": True}


def _record(
    store: Store,
    round_: int,
    evaluate: bool,
    spec: Spec,
    seconds: float,
    elapsed: float,
    cover: Cover,
    outcome: Outcome,
) -> dict[str, Any]:
    clients: dict[str, dict[str, Any]] = {}
    fates = dict.fromkeys(Fate, 0)
    updates: list[pb.Report] = []
    fresh: list[pb.Report] = []
    down_models = diverging = 0
    choices = store.choices(round_)
    totals = {"bytes_up": 0, "bytes_down": 0}
    for lease, name, traffic, raw in store.reports(round_, evaluate):
        fates[lease.fate] += 1
        totals["bytes_up"] += traffic.bytes_up
        totals["bytes_down"] += traffic.bytes_down
        down_models += traffic.models_down
        report = pb.Report.FromString(raw)
        if lease.fate is Fate.COUNTED:
            updates.append(report)
            fresh += [report] * (lease.round == round_)
        diverging += isnan(report.loss)
        entry = _entry(lease, round_ - lease.round, choices[lease.id], traffic, report)
        clients[name] = _joined(clients[name], entry) if name in clients else entry
    counted = fates[Fate.COUNTED]
    arrived = fidelity(Loss(sum(r.given for r in updates), sum(r.lost for r in updates)))
    record = {
        "round": round_,
        "seconds": seconds,
        "elapsed": elapsed,
        "cohort": sum(fates.values()),
        "updates": counted,
        "late": fates[Fate.STALE],
        "rejected": fates[Fate.REJECTED],
        "declined": fates[Fate.DECLINED],
        "diverged": diverging,
        "train_loss": _mean([r.loss for r in updates], [r.examples for r in updates]) if not evaluate else None,
        "metrics": {},
        "client_metrics": _client_means(fresh),
        "client_accuracy": _client_accuracy(clients.values()),
        "not_finite": [CLIENTS_LOSS] * _unmeasured(fresh),
        **totals,
        "bytes_up_uncompressed": 0 if evaluate else counted * spec.nbytes,
        "bytes_down_uncompressed": down_models * spec.nbytes,
        "fidelity_up": arrived,
        "fidelity_aggregate": None if arrived is None else fidelity(outcome.aggregate),
        "fidelity_down": fidelity(outcome.download),
        "moved": outcome.moved,
        "epsilon": max((r.epsilon for r in updates), default=0.0),
        "warnings": [],
        "clients": clients,
    }
    return cover.over(record, updates, fresh)


def _entry(lease: Lease, staleness: int, choice: Choice, traffic: Traffic, report: pb.Report) -> dict[str, Any]:
    """One lease, as a client's part of the record. ``staleness``: of its update, in versions."""
    return {
        "fate": lease.fate.value,
        "staleness": [staleness] * (lease.fate is Fate.COUNTED),
        "codec": choice.codec,
        "reason": choice.reason,
        "examples": report.examples,
        "loss": None if isnan(report.loss) else report.loss,
        "bytes_up": traffic.bytes_up,
        "bytes_down": traffic.bytes_down,
        "metrics": metrics_of(report),
        "held_out": report.held_out,
        "train_seconds": report.train_seconds,
        "encode_seconds": report.encode_seconds,
        "given": report.given,
        "lost": report.lost,
        "epsilon": report.epsilon,
    }


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two leases of one client: ``_SUMS`` are added up, the rest is from the last one that was counted."""
    counted = second if second["staleness"] or not first["staleness"] else first
    return {**counted, **{key: first[key] + second[key] for key in _SUMS}}


def _client_means(reports: Sequence[pb.Report]) -> dict[str, float]:
    """Means over the held-out examples of all clients that reported a metric."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for report in reports:
        for name, value in metrics_of(report).items():
            values, weights = found.setdefault(name, ([], []))
            values.append(value)
            weights.append(report.held_out)
    means = {name: _mean(*found[name]) for name in sorted(found)}
    return {name: mean for name, mean in means.items() if mean is not None}


def _unmeasured(reports: Iterable[pb.Report]) -> bool:
    """Clients measured the model, and none has a loss that it could report: one that is not finite is left out."""
    measured = [report for report in reports if report.held_out]
    return bool(measured) and not any(report.HasField("held_out_loss") for report in measured)


def _client_accuracy(clients: Iterable[dict[str, Any]]) -> dict[str, float] | None:
    """Its spread over the clients that reported one, each counting once."""
    found = [c["metrics"]["accuracy"] for c in clients if c["held_out"] and "accuracy" in c["metrics"]]
    seen = spread(found)
    return None if seen is None else asdict(seen)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float | None:
    total = float(sum(weights))
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total > 0 else None
