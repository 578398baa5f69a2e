"""A run that watches itself: warnings of what keeps it from doing its job, said when it is seen, each naming a key.

    fidelity_up    of what codecs were given, less than ``watch.floor`` arrives at the server
    fidelity_down  of what the download's codec was given, less than that arrives at devices
    arrival        nothing of what clients send has arrived, for ``watch.still_rounds`` rounds
    still          the model that devices see has not moved, for so many rounds
    loss           a loss is NaN or infinite, or training gave such a model
    metric         another metric of the server's is

A pure function of the rounds' records, which hold the warnings: a resumed run counts on where the other one stopped.
What privacy keeps out of records is not watched. Of an unbiased codec single updates are noisier than they are long,
and right in the mean: there the aggregate's fidelity is held against the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from fedpress.compression.registry import parse
from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.choice import possible

#: A change of less than this, of the model's length, is none: float32 numbers are as exact as that.
STILL: Final = 1e-7
#: A fidelity of less than this is none.
_NOTHING: Final = 1e-6
#: How a record's ``not_finite`` names metrics of the server's, its loss, and the one that clients measure.
SERVER: Final = "metrics."
SERVER_LOSS: Final = f"{SERVER}loss"
CLIENTS_LOSS: Final = "client_metrics.loss"
_LOSSES: Final = {SERVER_LOSS: "on the server's test data", CLIENTS_LOSS: "on clients' held-out data"}


class Kind(StrEnum):
    """What a warning is of. See the module's docstring."""

    FIDELITY_UP = "fidelity_up"
    FIDELITY_DOWN = "fidelity_down"
    ARRIVAL = "arrival"
    STILL = "still"
    LOSS = "loss"
    METRIC = "metric"


@dataclass(frozen=True)
class RunWarning:
    """What is wrong in a round, with the key that it is about and what to set. ``kind``: one of ``Kind``."""

    kind: str
    round: int
    text: str


class Limits(NamedTuple):
    """What a plan says of it: ``watch.floor``, ``watch.still_rounds``, the codecs, and whether updates' is unbiased."""

    floor: float
    rounds: int
    upload: str
    download: str
    unbiased: bool

    @classmethod
    def of(cls, plan: Plan) -> Limits:
        """A plan's."""
        unbiased = all(parse(text).unbiased for text in possible(plan.upload))
        return cls(plan.watch.floor, plan.watch.still_rounds, plan.upload.codec, plan.download.codec, unbiased)


@dataclass(frozen=True)
class Streaks:
    """For how many rounds, up to the last one, nothing has arrived, and the model has not moved. ``told``: clients have
    reported a loss."""

    nothing: int = 0
    still: int = 0
    told: bool = False


def trained(limits: Limits, streaks: Streaks, record: Mapping[str, Any]) -> tuple[Streaks, list[RunWarning]]:
    """What the record of a round of training shows, before its model is measured."""
    round_, found = int(record["round"]), []
    arrived, moved = record["fidelity_aggregate"], record["moved"]
    nothing = not record["updates"] or (arrived is not None and arrived <= _NOTHING)
    streaks = replace(
        streaks,
        nothing=streaks.nothing + 1 if nothing else 0,
        still=streaks.still + 1 if moved is not None and moved < STILL else 0,
    )
    for kind, fidelity, key, codec in (
        (Kind.FIDELITY_UP, arrived if limits.unbiased else record["fidelity_up"], "upload.codec", limits.upload),
        (Kind.FIDELITY_DOWN, record["fidelity_down"], "download.codec", limits.download),
    ):
        if fidelity is not None and fidelity < limits.floor:
            found.append(
                RunWarning(
                    kind,
                    round_,
                    f"Expected a fidelity of at least {_percent(limits.floor)} (watch.floor), got {_percent(fidelity)} "
                    f"in round {round_} from '{codec}' ({key}). Set {key} to a finer codec, such as 'nmse:0.5'.",
                )
            )
    if streaks.nothing >= limits.rounds:
        found.append(RunWarning(Kind.ARRIVAL, round_, _absent(limits, streaks.nothing, record)))
    elif streaks.still >= limits.rounds:
        found.append(RunWarning(Kind.STILL, round_, _standing(limits, streaks.still, record)))
    if record["diverged"]:
        found.append(
            RunWarning(
                Kind.LOSS,
                round_,
                f"Expected finite numbers from training, got NaN or infinity on {record['diverged']} of "
                f"{record['cohort']} clients in round {round_}. Lower train.lr, or set train.max_grad_norm.",
            )
        )
    return streaks, found


def measured(streaks: Streaks, record: Mapping[str, Any]) -> tuple[Streaks, list[RunWarning]]:
    """What the measures in a record show: the server's, and the clients'."""
    round_, bad = int(record["round"]), record["not_finite"]
    found = []
    remedy = "Lower train.lr, set train.max_grad_norm, and look for such numbers in the task's data and loss."
    lost = [where for name, where in _LOSSES.items() if name in bad and (name != CLIENTS_LOSS or streaks.told)]
    if lost:
        text = f"Expected a finite loss, got NaN or infinity {' and '.join(lost)} in round {round_}. {remedy}"
        found.append(RunWarning(Kind.LOSS, round_, text))
    if others := [name.removeprefix(SERVER) for name in bad if name not in _LOSSES]:
        text = f"Expected finite metrics, got NaN or infinity for {', '.join(others)} in round {round_} (task.name)."
        found.append(
            RunWarning(Kind.METRIC, round_, f"{text} Look at the task's metric function, and at its test data.")
        )
    return replace(streaks, told=streaks.told or "loss" in record["client_metrics"]), found


class Watcher:
    """Of one run: adds warnings to its records, and says each kind when it first comes up."""

    def __init__(self, plan: Plan, listen: events.Listener) -> None:
        self._limits, self._listen = Limits.of(plan), listen
        self._streaks = Streaks()
        self._said: set[str] = set()

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """After a restart: count on from the rounds' records. Whether the last one's warnings were still heard is not
        known: they are said again if they come up again."""
        known = list(records)
        self._said = {warning["kind"] for record in known[:-1] for warning in record["warnings"]}
        for record in known:
            if record["round"] and not record.get("evaluation"):
                self._streaks, _ = trained(self._limits, self._streaks, record)
            self._streaks, _ = measured(self._streaks, record)

    def trained(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a round that closes, with its warnings."""
        self._streaks, found = trained(self._limits, self._streaks, record)
        return _with(record, found)

    def measured(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a round whose model was measured, or of the last evaluation, with warnings of that too."""
        self._streaks, found = measured(self._streaks, record)
        return _with(record, found)

    def say(self, record: Mapping[str, Any]) -> None:
        """Tell listeners the warnings of a record that is kept, each kind once in a run."""
        for warning in record["warnings"]:
            if warning["kind"] not in self._said:
                self._said.add(warning["kind"])
                self._listen(events.Warned(warning["kind"], warning["round"], warning["text"]))


def _with(record: Mapping[str, Any], found: Iterable[RunWarning]) -> dict[str, Any]:
    """The record with warnings added; of two of a kind the first stays."""
    kept = {warning["kind"]: warning for warning in record["warnings"]}
    for warning in found:
        kept.setdefault(warning.kind, asdict(warning))
    return {**record, "warnings": list(kept.values())}


def _absent(limits: Limits, rounds: int, record: Mapping[str, Any]) -> str:
    if not record["updates"]:
        return (
            f"Expected updates, got {rounds} rounds in a row without one that counts. Raise cohort.fraction or "
            "cohort.deadline_s, and look at what clients say."
        )
    return (
        f"Expected updates that arrive, got {rounds} rounds in a row in which nothing of them did: '{limits.upload}' "
        "is too coarse for this model (upload.codec). Set upload.codec to a finer codec, such as 'nmse:0.5'."
    )


def _standing(limits: Limits, rounds: int, record: Mapping[str, Any]) -> str:
    what = f"Expected a model that moves, got {rounds} rounds in a row in which it moved by less than {STILL:g} of its "
    up, down = record["fidelity_up"], record["fidelity_down"]
    if up is None and not record["moved"]:
        return (
            f"{what}length, and updates of zeros: training changes nothing. Raise train.lr, and see that the model has "
            "parameters that ask for gradients (task.name)."
        )
    if down is not None and down <= _NOTHING:
        return f"{what}length: downloads carry nothing. Set download.codec to a finer codec than '{limits.download}'."
    return f"{what}length. Raise train.lr or strategy.lr."


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
