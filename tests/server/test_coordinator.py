"""The round's laws, held against thousands of event sequences without a network."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import Refused
from fedpress.server.cohorts import Cohorts
from fedpress.server.leases import Fate, Finish, Grant, Hold, Issue, Lease, Over, Phase, Rules, Step
from fedpress.server.selection.candidate import Candidate, Condition
from fedpress.server.selection.uniform import uniform


def coordinator(clients: int = 4, **rules: object) -> Cohorts:
    ids = itertools.count()
    defaults = {"rounds": 3, "cohort": lambda n: n, "select": uniform(0), "min_clients": clients, "deadline_s": 10.0}
    return Cohorts(Rules(**{**defaults, **rules}), new_id=lambda: f"t{next(ids)}")  # type: ignore[arg-type]


def enrol(c: Cohorts, clients: int, now: float = 0.0) -> list[object]:
    return [a for i in range(clients) for a in c.enrolled(f"id{i}", f"name{i}", now)]


def grant(c: Cohorts, client: str, now: float = 0.0) -> Grant:
    answer = c.poll(client, now)
    assert isinstance(answer, Grant)
    return answer


def test_a_round_opens_when_enough_enrolled_and_closes_when_all_are_counted() -> None:
    c = coordinator(3)
    assert enrol(c, 2) == []
    assert isinstance(c.poll("id0", 0.0), Hold)
    (issue,) = c.enrolled("id2", "name2", 0.0)
    assert isinstance(issue, Issue)
    assert {lease.client for lease in issue.leases} == {"id0", "id1", "id2"}
    tickets = [grant(c, f"id{i}").lease.id for i in range(3)]
    assert c.counted(tickets[0], 1.0) == c.counted(tickets[1], 1.0) == []
    assert c.counted(tickets[2], 1.0) == [Step(1)]
    assert isinstance(c.poll("id0", 1.0), Hold)  # the round is being stepped


def test_polling_twice_gives_the_same_ticket_and_counting_twice_counts_once() -> None:
    c = coordinator(2)
    enrol(c, 2)
    ticket = grant(c, "id0").lease.id
    assert grant(c, "id0").lease.id == ticket
    c.counted(ticket, 1.0)
    assert c.counted(ticket, 1.0) == []
    assert c.admit(ticket, "id0").fate is Fate.COUNTED
    assert c.phase is Phase.TRAINING


def test_tickets_of_others_unknown_and_stale_ones_are_refused_by_name() -> None:
    c = coordinator(2, cohort=lambda n: 1, over_select=2.0)
    enrol(c, 2)
    first, second = grant(c, "id0").lease.id, grant(c, "id1").lease.id
    for ticket, client, fault in [("nonsense", "id0", "FAULT_UNKNOWN_TICKET"), (second, "id0", "FAULT_UNKNOWN_TICKET")]:
        with pytest.raises(Refused) as refusal:
            c.admit(ticket, client)
        assert refusal.value.fault == fault
    assert c.counted(first, 1.0) == [Step(1)]  # over-selected: one of two is enough
    c.stepped(2.0)
    with pytest.raises(Refused) as refusal:
        c.admit(second, "id1", archived=Lease(second, "id1", 1, fate=Fate.STALE))
    assert refusal.value.fault == "FAULT_STALE_ROUND"


def test_a_deadline_closes_with_enough_updates_and_is_extended_with_too_few() -> None:
    c = coordinator(3, min_updates=2)
    enrol(c, 3)
    c.counted(grant(c, "id0").lease.id, 1.0)
    actions = c.tick(10.0)
    assert c.phase is Phase.TRAINING
    assert "extended" in str(actions)
    c.counted(grant(c, "id1", 11.0).lease.id, 12.0)
    assert c.tick(19.9) == []
    assert c.tick(20.0) == [Step(1)]


def test_a_rejected_client_is_replaced_by_one_that_was_not_invited() -> None:
    c = coordinator(4, cohort=lambda n: 2)
    (issue,) = enrol(c, 4)
    invited = {lease.client for lease in issue.leases}  # type: ignore[attr-defined]
    assert len(invited) == 2
    (replacement,) = c.rejected(grant(c, min(invited)).lease.id, 1.0)
    assert isinstance(replacement, Issue)
    assert replacement.leases[0].client not in invited


def test_after_the_last_round_every_present_client_evaluates_the_last_model() -> None:
    c = coordinator(2, rounds=1, final_evaluation=True)
    enrol(c, 2)
    for i in range(2):
        c.counted(grant(c, f"id{i}").lease.id, 1.0)
    (issue,) = c.stepped(2.0)
    assert isinstance(issue, Issue)
    assert all(lease.evaluate for lease in issue.leases)
    assert c.counted(issue.leases[0].id, 3.0) == []
    assert c.counted(issue.leases[1].id, 3.0) == [Finish("all rounds are done")]
    assert isinstance(c.poll("id0", 4.0), Over)


def test_restoring_a_complete_round_closes_it() -> None:
    c = coordinator(2)
    enrol(c, 2)
    for i in range(2):
        c.counted(grant(c, f"id{i}").lease.id, 1.0)
    d = coordinator(2)
    d.restore(1, Phase.TRAINING, c.target, c.leases.values(), c.names, 100.0)
    assert d.resume_actions(101.0) == [Step(1)]


def test_when_everybody_declines_the_run_ends_and_says_so() -> None:
    c = coordinator(2)
    enrol(c, 2)
    assert c.declined(grant(c, "id0").lease.id, 1.0) == []
    assert c.declined(grant(c, "id1").lease.id, 1.0) == [Finish("every client declined round 1")]


@pytest.mark.parametrize(("ends", "over"), [("ddr", True), ("drd", True), ("drr", False), ("dr", False), ("rr", False)])
def test_a_run_ends_where_most_decline_and_the_others_updates_are_refused(ends: str, over: bool) -> None:
    c = coordinator(len(ends))
    enrol(c, len(ends))
    for i, end in enumerate(ends):
        actions = (c.declined if end == "d" else c.rejected)(grant(c, f"id{i}").lease.id, 1.0)
    assert (actions == [Finish("nobody is left in round 1: 2 declined, the updates of 1 were refused")]) is over
    assert over or (actions == [] and isinstance(c.tick(c.deadline)[-1], Issue))  # asked once more


def test_who_was_rejected_is_invited_again_when_the_deadline_is_extended() -> None:
    c = coordinator(1)
    enrol(c, 1)
    first = grant(c, "id0").lease.id
    assert c.rejected(first, 1.0) == []
    assert isinstance(c.poll("id0", 5.0), Hold)
    c.tick(10.0)
    assert grant(c, "id0", 10.0).lease.id != first


def test_after_a_restart_the_round_waits_for_those_who_were_there() -> None:
    c = coordinator(3, regroup_s=30.0)
    c.restore(2, Phase.GATHERING, 0, [], {f"id{i}": f"name{i}" for i in range(3)}, 100.0)
    assert c.met("id0", 101.0) == c.met("id1", 102.0) == []
    (issue,) = c.met("id2", 103.0)
    assert len(issue.leases) == 3  # type: ignore[union-attr]
    d = coordinator(3, regroup_s=30.0)
    d.restore(2, Phase.GATHERING, 0, [], {f"id{i}": f"name{i}" for i in range(3)}, 100.0)
    d.met("id0", 101.0)
    (issue,) = d.tick(130.0)  # the others may be gone for good
    assert len(issue.leases) == 1  # type: ignore[union-attr]


def test_a_round_is_of_the_willing_and_waits_until_there_are_enough() -> None:
    conditions = dict.fromkeys(("name0", "name1", "name2"), Condition(charging=False))
    c = coordinator(3, require=("charging",), min_updates=2)
    c.known = lambda client, name: Candidate(name, condition=conditions[name])
    assert enrol(c, 3) == []
    conditions["name1"] = Condition(charging=True)
    assert c.met("id1", 1.0) == []
    conditions["name2"] = Condition()
    (issue,) = c.met("id2", 2.0)
    assert {lease.client for lease in issue.leases} == {"id1", "id2"}  # type: ignore[union-attr]
    assert isinstance(c.poll("id0", 2.0), Hold)
    for client in ("id1", "id2"):
        last = c.counted(grant(c, client).lease.id, 3.0)
    assert last == [Step(1)]  # it is complete without the unwilling


def test_a_coordinator_that_is_held_opens_no_round() -> None:
    c = coordinator(2)
    c.held = True
    assert enrol(c, 2) == c.tick(1.0) == []
    c.held = False
    (issue,) = c.tick(2.0)
    assert isinstance(issue, Issue)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["poll", "count", "reject", "decline", "tick", "meet"]), st.integers(0, 4), st.floats(0, 8)
    ),
    max_size=80,
)


@given(EVENTS, st.integers(1, 5), st.sampled_from([1.0, 1.5, 2.0]), st.booleans())
def test_any_sequence_of_events_keeps_the_laws(
    events: list[tuple[str, int, float]], size: int, over: float, evaluation: bool
) -> None:
    c = coordinator(5, cohort=lambda n: min(n, size), over_select=over, final_evaluation=evaluation, presence_s=20.0)
    now, counted_in, stepped = 0.0, set(), 0
    pending = enrol(c, 5)
    for kind, i, wait in events:
        now += wait
        client = f"id{i}"
        answer = c.poll(client, now)
        if isinstance(answer, Grant):
            assert answer.lease.client == client
            assert answer.lease.fate is Fate.OPEN
            ticket = answer.lease.id
            if kind == "count":
                assert ticket not in counted_in  # nothing is counted twice
                counted_in.add(ticket)
                pending += c.counted(ticket, now)
            elif kind == "reject":
                pending += c.rejected(ticket, now)
            elif kind == "decline":
                pending += c.declined(ticket, now)
        if kind == "tick":
            pending += c.tick(now)
        elif kind == "meet":
            pending += c.met(client, now)
        for action in pending:
            if isinstance(action, Step):
                assert sum(v.fate is Fate.COUNTED for v in c.leases.values()) >= 1
                assert action.round == stepped + 1
                stepped += 1
                pending = pending + c.stepped(now)
        pending = []
        clients = [v.client for v in c.leases.values()]
        assert len(clients) == len(set(clients))  # one lease per client and round
    assert stepped <= 3
    if c.phase is Phase.FINISHED:
        fates = [v.fate for v in c.leases.values()]
        declined, refused = fates.count(Fate.DECLINED), fates.count(Fate.REJECTED)
        assert stepped == 3 or declined == len(fates) or declined + refused == len(fates) < 2 * declined
