from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.client import actions, events
from fedpress.client.session import CALLING, FIRST_PAUSE, LONGEST_PAUSE, ON_FAULT, Answer, Session, State
from fedpress.compression.stream import Stream
from fedpress.protos import fleet_pb2 as pb

M1 = "f1" * 32
TICKET = pb.Ticket(
    id=b"t1",
    round=1,
    model=bytes.fromhex(M1),
    recipe=[pb.Blob(hash=b"a", size=5, full=True), pb.Blob(hash=b"b", size=7)],
)
#: From NEW, the good answers that lead to each state.
TO_IDLE = [events.Enrolled(held="m0")]
TO_FETCHING = [*TO_IDLE, events.GotTicket(TICKET)]
TO_REBUILDING = [*TO_FETCHING, events.GotBlob(), events.GotBlob()]
TO_WORKING = [*TO_REBUILDING, events.Rebuilt()]
TO_PUSHING = [*TO_WORKING, events.Trained()]
PATHS: dict[State, list[events.Event]] = {
    State.NEW: [],
    State.IDLE: TO_IDLE,
    State.FETCHING: TO_FETCHING,
    State.REBUILDING: TO_REBUILDING,
    State.WORKING: TO_WORKING,
    State.DECLINING: [*TO_WORKING, events.CannotTrain("low battery")],
    State.RESUMING: [events.Enrolled(held="m0", pending=b"t1")],
    State.PUSHING: TO_PUSHING,
    State.COMMITTING: [*TO_PUSHING, events.Acknowledged()],
    State.DROPPING: [*TO_PUSHING, events.Refused("FAULT_STALE_ROUND")],
    State.DONE: [*TO_IDLE, events.GotFinished("over")],
}
#: Every kind of answer each state may get.
CALL = [events.Gone(kept=3), *(events.Refused(fault) for fault in pb.Fault.keys())]  # noqa: SIM118
ANSWERS: dict[State, list[events.Event]] = {
    State.NEW: [events.Enrolled(), events.Enrolled("m0"), events.Enrolled("m0", b"t0"), *CALL],
    State.IDLE: [
        events.GotTicket(TICKET),
        events.GotTicket(pb.Ticket(id=b"t2", model=bytes.fromhex(M1))),
        events.GotWait(5.0),
        events.GotWait(float("nan")),
        events.GotFinished("over"),
        *CALL,
    ],
    State.FETCHING: [events.GotBlob(), events.BadBlob(), *CALL],
    State.REBUILDING: [events.Rebuilt(), events.RebuildFailed("another hash")],
    State.WORKING: [events.Trained(), events.CannotTrain("no"), events.CannotTrain("never", final=True)],
    State.DECLINING: [events.Acknowledged(), *CALL],
    State.RESUMING: [events.GotOffset(4), events.GotOffset(9, acknowledged=True), *CALL],
    State.PUSHING: [events.Acknowledged(), *CALL],
    State.COMMITTING: [events.Settled()],
    State.DROPPING: [events.Settled()],
    State.DONE: [],
}
#: What a server and a device in good health answer.
GOOD: dict[State, events.Event] = {state: answers[0] for state, answers in ANSWERS.items() if answers}


def session(*path: events.Event) -> Session:
    made = Session(Stream.of("test"))
    for event in path:
        made.on(event)
    return made


def rested(made: Session) -> actions.Action:
    while isinstance(made.action, actions.Sleep):
        made.on(events.Rested())
    return made.action


@pytest.mark.parametrize("state", State)
def test_each_state_is_reached_by_its_path(state: State) -> None:
    assert session(*PATHS[state]).state is state


def test_one_round() -> None:
    made = session()
    seen = [made.action]
    answers = [
        events.Enrolled(held="m0"),
        events.GotTicket(TICKET),
        events.GotBlob(),
        events.GotBlob(),
        events.Rebuilt(),
        events.Trained(),
        events.Acknowledged(),
        events.Settled(),
    ]
    seen += [made.on(answer) for answer in answers]
    assert seen == [
        actions.DoEnrol(),
        actions.AskWork("m0"),
        actions.Fetch(TICKET.recipe[0], 0),
        actions.Fetch(TICKET.recipe[1], 0),
        actions.Rebuild(TICKET),
        actions.Train(TICKET),
        actions.Push(b"t1", 0),
        actions.Commit(b"t1"),
        actions.AskWork(M1),
    ]


#: The promises of fleet.proto about an update on its way, written down a second time.
AFTER_PUSH: dict[str, actions.Action] = {
    "FAULT_UNSPECIFIED": actions.AskOffset(b"t1"),
    "FAULT_PROTOCOL": actions.Stop("no", failed=True),
    "FAULT_NOT_ENROLLED": actions.DoEnrol(),
    "FAULT_INCAPABLE": actions.Stop("no", failed=True),
    "FAULT_UNKNOWN_TICKET": actions.Drop(b"t1", "FAULT_UNKNOWN_TICKET: no"),
    "FAULT_STALE_ROUND": actions.Drop(b"t1", "FAULT_STALE_ROUND: no"),
    "FAULT_WRONG_MODEL": actions.Drop(b"t1", "FAULT_WRONG_MODEL: no"),
    "FAULT_UPDATE_TOO_LARGE": actions.Drop(b"t1", "FAULT_UPDATE_TOO_LARGE: no"),
    "FAULT_MALFORMED": actions.Drop(b"t1", "FAULT_MALFORMED: no"),
    "FAULT_UNKNOWN_BLOB": actions.Drop(b"t1", "FAULT_UNKNOWN_BLOB: no"),
    "FAULT_BAD_OFFSET": actions.AskOffset(b"t1"),
    "FAULT_BUSY": actions.AskOffset(b"t1"),
    "FAULT_NO_RELEASE": actions.Drop(b"t1", "FAULT_NO_RELEASE: no"),
    "FAULT_WRONG_MEMORY": actions.Drop(b"t1", "FAULT_WRONG_MEMORY: no", anew=True),
}


@pytest.mark.parametrize("fault", AFTER_PUSH)
def test_a_refused_push(fault: str) -> None:
    made = session(*PATHS[State.PUSHING])
    made.on(events.Refused(fault, "no"))
    assert rested(made) == AFTER_PUSH[fault]


@pytest.mark.parametrize(("fault", "state"), ON_FAULT)
def test_each_fault_in_each_state_pauses_unless_it_drops_or_stops(fault: str, state: State) -> None:
    made = session(*PATHS[state])
    before = made.action
    action = made.on(events.Refused(fault, "no"))
    answer = ON_FAULT[fault, state]
    assert isinstance(action, actions.Sleep) == (answer not in (Answer.DROP, Answer.ANEW, Answer.STOP))
    after = {
        Answer.AGAIN: before,
        Answer.ASK: actions.AskWork("m0" if state is State.FETCHING else M1),
        Answer.OFFSET: actions.AskOffset(b"t1"),
        Answer.ENROL: actions.DoEnrol(),
        Answer.DROP: actions.Drop(b"t1", f"{fault}: no"),
        Answer.ANEW: actions.Drop(b"t1", f"{fault}: no", anew=True),
        Answer.STOP: actions.Stop("no", failed=True),
    }
    assert rested(made) == after[answer]


def test_the_fault_table_is_complete() -> None:
    assert set(ON_FAULT) == {(fault, state) for fault in pb.Fault.keys() for state in CALLING}  # noqa: SIM118


@pytest.mark.parametrize("state", State)
def test_an_event_that_is_no_answer_is_the_callers_mistake(state: State) -> None:
    legal = {type(event) for event in ANSWERS[state]}
    for event in {type(e): e for answers in ANSWERS.values() for e in answers}.values():
        if type(event) not in legal:
            with pytest.raises(ValueError, match="Expected an answer"):
                session(*PATHS[state]).on(event)


def test_a_fetch_resumes_at_the_byte_where_it_broke_and_starts_anew_on_bad_bytes() -> None:
    made = session(*PATHS[State.FETCHING])
    made.on(events.Gone(kept=3))
    assert rested(made) == actions.Fetch(TICKET.recipe[0], 3)
    made.on(events.BadBlob())
    assert rested(made) == actions.Fetch(TICKET.recipe[0], 0)


def test_a_broken_push_asks_for_the_offset_and_resumes_there() -> None:
    made = session(*PATHS[State.PUSHING])
    made.on(events.Gone())
    assert rested(made) == actions.AskOffset(b"t1")
    assert made.on(events.GotOffset(11)) == actions.Push(b"t1", 11)


def test_a_restart_with_an_update_pending_finishes_it_first() -> None:
    made = session(events.Enrolled(held=M1, pending=b"t1"))
    assert made.action == actions.AskOffset(b"t1")
    assert made.on(events.GotOffset(0, acknowledged=True)) == actions.Commit(b"t1")


def test_a_wrong_hash_costs_one_full_download_and_never_gives_a_wrong_model() -> None:
    made = session(*PATHS[State.REBUILDING])
    assert made.on(events.RebuildFailed("hash")) == actions.AskWork("")
    for event in (events.GotTicket(TICKET), events.GotBlob(), events.GotBlob()):
        made.on(event)
    assert made.on(events.RebuildFailed("hash again")) == actions.Decline(b"t1", "hash again")
    assert made.on(events.Acknowledged()) == actions.Stop("hash again", failed=True)


def test_declining_goes_on_unless_it_is_final() -> None:
    made = session(*TO_WORKING, events.CannotTrain("budget"))
    assert made.action == actions.Decline(b"t1", "budget")
    made.on(events.Acknowledged())
    assert rested(made) == actions.AskWork(M1)
    final = session(*TO_WORKING, events.CannotTrain("no such codec", final=True))
    assert final.on(events.Acknowledged()) == actions.Stop("no such codec", failed=True)


def test_who_is_not_known_enrols_again_then_gives_up() -> None:
    made = session(*PATHS[State.PUSHING])
    unknown = events.Refused("FAULT_NOT_ENROLLED", "who?")
    made.on(unknown)
    assert rested(made) == actions.DoEnrol()
    made.on(events.Gone())
    assert rested(made) == actions.DoEnrol()
    assert made.on(unknown) == actions.Stop("who?", failed=True)


def test_pauses_double_with_jitter_up_to_their_limit_and_start_anew_after_progress() -> None:
    lengths: list[list[float]] = [[] for _ in range(10)]
    for seed in range(200):
        made = Session(Stream.of(seed))
        for attempt in range(10):
            pause = made.on(events.Gone())
            assert isinstance(pause, actions.Sleep)
            lengths[attempt].append(pause.seconds)
            made.on(events.Rested())
    for attempt, drawn in enumerate(lengths):
        ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
        assert 0 <= min(drawn) < 0.1 * ceiling
        assert 0.9 * ceiling < max(drawn) <= ceiling
    made = session(*TO_FETCHING, *[events.Gone(), events.Rested()] * 10, events.GotBlob())
    pause = made.on(events.Gone())
    assert isinstance(pause, actions.Sleep)
    assert pause.seconds <= FIRST_PAUSE


def test_waits_that_the_server_names_are_kept_within_reason() -> None:
    named = events.Refused("FAULT_BUSY", retry_after=7.0)
    assert session(*TO_IDLE).on(named) == actions.Sleep(7.0)
    assert session(*TO_IDLE).on(events.GotWait(2.5)) == actions.Sleep(2.5)
    for mad in (float("nan"), float("inf"), -1.0, 1e18):
        pause = session(*TO_IDLE).on(events.GotWait(mad))
        assert isinstance(pause, actions.Sleep)
        assert 0 < pause.seconds <= 3600


def test_reachable_turns_once_when_the_server_goes_and_once_when_it_is_back() -> None:
    made = session(*TO_IDLE)
    seen = [made.reachable]
    for event in (events.Gone(), events.Rested(), events.Gone(), events.Rested(), events.GotWait(1.0), events.Rested()):
        made.on(event)
        seen.append(made.reachable)
    assert seen == [True, False, False, False, False, True, True]


@given(st.lists(st.integers(0, 2**30), max_size=120))
def test_no_sequence_of_answers_raises_wedges_or_breaks_the_laws(choices: list[int]) -> None:
    made, rebuilt, trained, acknowledged = Session(Stream.of("test")), "", "", False
    for choice in choices:
        action = made.action
        if isinstance(action, actions.Stop):
            break
        if isinstance(action, actions.Sleep):
            assert 0 <= action.seconds <= 3600
            made.on(events.Rested())
            continue
        if isinstance(action, actions.Train):
            assert rebuilt == action.ticket.model, "trains only on a model whose hash was confirmed"
        if isinstance(action, actions.Commit):
            assert acknowledged, "commits only what was acknowledged"
        if isinstance(action, actions.Push):
            assert action.ticket == trained, "pushes only what is pending"
        event = ANSWERS[made.state][choice % len(ANSWERS[made.state])]
        acknowledged = isinstance(event, events.Acknowledged) or getattr(event, "acknowledged", False)
        if isinstance(event, events.Rebuilt) and isinstance(action, actions.Rebuild):
            rebuilt = action.ticket.model
        if isinstance(event, events.Trained) and isinstance(action, actions.Train):
            trained = action.ticket.id
        if isinstance(event, events.Enrolled):
            trained = event.pending
        made.on(event)
    for _ in range(40):  # a world in good health brings every device to the end of the run
        if isinstance(made.action, actions.Stop):
            return
        over = made.state is State.IDLE and not isinstance(made.action, actions.Sleep)
        resting = isinstance(made.action, actions.Sleep)
        made.on(events.Rested() if resting else events.GotFinished("over") if over else GOOD[made.state])
    pytest.fail(f"wedged in {made.state}")
