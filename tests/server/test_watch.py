"""What a run warns of by itself: each kind when it comes up, with its key, and never for an ordinary round."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import Refused
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.bounds import check_report
from fedpress.server.events import Event, Warned
from fedpress.server.watch import CLIENTS_LOSS, SERVER_LOSS, Kind, Watcher

ORDINARY: dict[str, Any] = {
    "round": 1,
    "updates": 4,
    "cohort": 5,
    "diverged": 0,
    "client_metrics": {"accuracy": 0.5, "loss": 1.0},
    "not_finite": [],
    "fidelity_up": 0.5,
    "fidelity_aggregate": 0.6,
    "fidelity_down": 0.7,
    "moved": 1e-3,
    "warnings": [],
}
NOTHING = {"fidelity_up": 0.0, "fidelity_aggregate": 0.0, "moved": 0.0}
ZEROS = {"fidelity_up": None, "fidelity_aggregate": None, "fidelity_down": None, "moved": 0.0}
PLAN = load(None, ["watch.floor=0.2", "watch.still_rounds=3"])


def watched(*rounds: dict[str, Any], plan: Plan = PLAN, cut: int = 0) -> tuple[list[dict[str, Any]], list[Warned]]:
    """The records of a run with these rounds, and what it said; with a restart after ``cut`` rounds."""
    heard: list[Event] = []
    records: list[dict[str, Any]] = []
    watcher = Watcher(plan, heard.append)
    for number, what in enumerate(rounds, start=1):
        if cut and number == cut + 1:
            watcher = Watcher(plan, heard.append)
            watcher.restore(records)
        records.append(watcher.measured(watcher.trained({**ORDINARY, "round": number, **what})))
        watcher.say(records[-1])
    return records, [event for event in heard if isinstance(event, Warned)]


def kinds(record: dict[str, Any]) -> list[str]:
    return [warning["kind"] for warning in record["warnings"]]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "fidelity_up": st.none() | st.floats(0.2, 1),
                "fidelity_aggregate": st.none() | st.floats(0.01, 1),
                "fidelity_down": st.none() | st.floats(0.2, 1),
                "moved": st.none() | st.floats(1e-6, 10),
                "updates": st.integers(1, 5),
            }
        ),
        max_size=9,
    )
)
def test_ordinary_rounds_are_no_reason_to_warn(rounds: list[dict[str, Any]]) -> None:
    records, said = watched(*rounds)
    assert not said
    assert not any(kinds(record) for record in records)


def test_what_privacy_hides_and_what_does_not_travel_is_not_warned_of() -> None:
    hidden = {"fidelity_up": None, "fidelity_aggregate": None, "fidelity_down": None, "client_metrics": {}}
    assert not watched(*[{**hidden, "moved": None}] * 9)[1]
    assert not watched(*[{**hidden, "moved": 0.1}] * 9)[1]


@pytest.mark.parametrize(
    ("what", "kind", "key", "after"),
    [
        ({"fidelity_up": 0.19}, Kind.FIDELITY_UP, "upload.codec", 1),
        ({"fidelity_down": 0.0}, Kind.FIDELITY_DOWN, "download.codec", 1),
        (NOTHING, Kind.ARRIVAL, "upload.codec", 3),
        ({"updates": 0, "fidelity_up": None}, Kind.ARRIVAL, "cohort.deadline_s", 3),
        (ZEROS, Kind.STILL, "train.lr", 3),
        ({"moved": 1e-9}, Kind.STILL, "train.lr", 3),
        ({"moved": 0.0, "fidelity_down": 0.0}, Kind.STILL, "download.codec", 3),
        ({"diverged": 2}, Kind.LOSS, "train.lr", 1),
        ({"not_finite": [SERVER_LOSS]}, Kind.LOSS, "train.lr", 1),
        ({"not_finite": ["metrics.auc"]}, Kind.METRIC, "auc", 1),
    ],
)
def test_each_kind_is_said_when_it_comes_up_once_and_names_its_key(
    what: dict[str, Any], kind: Kind, key: str, after: int
) -> None:
    records, said = watched(*[what] * 5)
    assert [kind in kinds(record) for record in records] == [number >= after for number in range(1, 6)]
    (warning,) = [w for w in said if w.kind == kind]
    assert warning.round == after
    assert key in warning.text
    assert "Expected" in warning.text


def test_a_streak_is_of_rounds_in_a_row() -> None:
    records, said = watched(ZEROS, ZEROS, {}, ZEROS, ZEROS, {}, ZEROS)
    assert not said
    assert not any(kinds(record) for record in records)


def test_nothing_that_arrives_is_said_and_not_that_the_model_stands_still_for_it() -> None:
    records, _ = watched(*[NOTHING] * 4)
    assert Kind.ARRIVAL in kinds(records[-1])
    assert Kind.STILL not in kinds(records[-1])


def test_of_an_unbiased_codec_the_mean_of_the_updates_counts() -> None:
    noisy = {"fidelity_up": 0.0, "fidelity_aggregate": 0.5}
    unbiased = load(None, ["upload.codec=qsgd:4", "watch.floor=0.2"])
    assert not watched(noisy, plan=unbiased)[1]
    assert [w.kind for w in watched({**noisy, "fidelity_aggregate": 0.1}, plan=unbiased)[1]] == [Kind.FIDELITY_UP]
    assert [w.kind for w in watched(noisy)[1]] == [Kind.FIDELITY_UP]


def test_clients_that_never_report_a_loss_have_not_lost_it() -> None:
    without = {"not_finite": [CLIENTS_LOSS], "client_metrics": {"accuracy": 0.5}}
    assert not watched(*[without] * 3)[1]
    assert [w.kind for w in watched({}, without)[1]] == [Kind.LOSS]


def test_a_floor_of_zero_and_patience_are_the_plans() -> None:
    assert not watched({"fidelity_up": 0.0}, plan=load(None, ["watch.floor=0"]))[1]
    assert [w.round for w in watched(*[ZEROS] * 4, plan=load(None, ["watch.still_rounds=2"]))[1]] == [2]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_restart_changes_no_record_and_says_nothing_for_long_again(cut: int) -> None:
    rounds = [{}, ZEROS, ZEROS, ZEROS, {"fidelity_up": 0.1}, ZEROS]
    records, said = watched(*rounds)
    again, heard = watched(*rounds, cut=cut)
    assert again == records
    assert {w.kind for w in heard} == {w.kind for w in said}
    assert len(heard) <= len(said) + 1  # the last round's before the restart may not have been heard


@pytest.mark.parametrize("said", [{"given": -1.0}, {"lost": -1.0}, {"given": math.inf}, {"lost": math.nan}])
def test_energies_that_are_none_are_refused(said: dict[str, float]) -> None:
    check_report(pb.Report(given=2.0, lost=1.0))
    with pytest.raises(Refused, match="energies"):
        check_report(pb.Report(**said))
