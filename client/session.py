"""A device's side of the protocol as a table: events in, actions out. No sockets, clocks, files or models in here.

    session.action          what to do now; the same until it is answered
    session.on(event)       how it went; gives the next action

The action is a function of the state, and each has its own answers. The whole machine:

    state       action             answers, and the state they lead to
    NEW         DoEnrol            Enrolled -> RESUMING if an update is pending, else IDLE
    IDLE        AskWork(held)      GotTicket -> FETCHING, or REBUILDING with nothing to fetch;
                                   GotWait -> IDLE after a pause; GotFinished -> DONE
    FETCHING    Fetch(blob, off)   GotBlob -> FETCHING the next, REBUILDING after the last; BadBlob -> FETCHING from 0
    REBUILDING  Rebuild(ticket)    Rebuilt -> WORKING; RebuildFailed -> IDLE, holding nothing; where nothing was held
                                   -> DECLINING and DONE
    WORKING     Train(ticket)      Trained -> PUSHING; CannotTrain -> DECLINING, and DONE where it is final
    DECLINING   Decline(ticket)    Acknowledged -> IDLE after a pause, or DONE
    RESUMING    AskOffset(ticket)  GotOffset -> PUSHING, or COMMITTING where it was acknowledged
    PUSHING     Push(ticket, off)  Acknowledged -> COMMITTING
    COMMITTING  Commit(ticket)     Settled -> IDLE
    DROPPING    Drop(ticket)       Settled -> IDLE
    DONE        Stop(reason)       none

Actions that call the server may also be answered by Gone (pause, then the same call; an upload first asks how much has
arrived) and by Refused, for which ``ON_FAULT`` has a row per fault and a column per state. A pause is the action Sleep,
answered by Rested, and lies in front of the state's own action. Pauses double from 0.2 to 30 seconds, with full jitter
(Brooker 2015, "Exponential Backoff And Jitter"), until work makes progress. An event that does not answer the action is
a mistake of the caller: ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, TypeAlias

from fedpress.client import actions, events
from fedpress.compression.stream import Stream
from fedpress.protos import fleet_pb2 as pb

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
#: What a server may ask for, in seconds: neither a busy loop nor a device that never comes back.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 3600.0


class State(Enum):
    """Where a device is in the protocol."""

    NEW = auto()
    IDLE = auto()
    FETCHING = auto()
    REBUILDING = auto()
    WORKING = auto()
    DECLINING = auto()
    RESUMING = auto()
    PUSHING = auto()
    COMMITTING = auto()
    DROPPING = auto()
    DONE = auto()


class Answer(Enum):
    """What a device does about a refusal. All but DROP, ANEW and STOP pause first, so that no server is hammered."""

    AGAIN = auto()  # the same call again
    ASK = auto()  # let go of the ticket and ask for work
    OFFSET = auto()  # ask how much of the update has arrived, and go on from there
    ENROL = auto()  # enrol anew
    DROP = auto()  # forget the update, keep the old residual, go on
    ANEW = auto()  # forget the update and what the codec remembers, go on
    STOP = auto()  # say why and end


CALLING: Final = (State.NEW, State.IDLE, State.FETCHING, State.DECLINING, State.RESUMING, State.PUSHING)
_A, _K, _O, _E, _S = Answer.AGAIN, Answer.ASK, Answer.OFFSET, Answer.ENROL, Answer.STOP
_D, _N = Answer.DROP, Answer.ANEW
_ROWS: Final[Mapping[str, tuple[Answer, ...]]] = {
    # fault                    NEW IDLE FETCHING DECLINING RESUMING PUSHING
    "FAULT_UNSPECIFIED":      (_A, _A, _A, _K, _A, _O),
    "FAULT_PROTOCOL":         (_S, _S, _S, _S, _S, _S),
    "FAULT_NOT_ENROLLED":     (_S, _E, _E, _E, _E, _E),
    "FAULT_INCAPABLE":        (_S, _S, _S, _S, _S, _S),
    "FAULT_UNKNOWN_TICKET":   (_A, _A, _K, _K, _D, _D),
    "FAULT_STALE_ROUND":      (_A, _A, _K, _K, _D, _D),
    "FAULT_WRONG_MODEL":      (_A, _A, _K, _K, _D, _D),
    "FAULT_UPDATE_TOO_LARGE": (_A, _A, _K, _K, _D, _D),
    "FAULT_MALFORMED":        (_A, _A, _K, _K, _D, _D),
    "FAULT_UNKNOWN_BLOB":     (_A, _A, _K, _K, _D, _D),
    "FAULT_BAD_OFFSET":       (_A, _A, _K, _K, _A, _O),
    "FAULT_BUSY":             (_A, _A, _A, _A, _A, _O),
    "FAULT_NO_RELEASE":       (_A, _A, _K, _K, _D, _D),
    "FAULT_WRONG_MEMORY":     (_A, _A, _K, _K, _N, _N),
}  # fmt: skip
ON_FAULT: Final[Mapping[tuple[str, State], Answer]] = {
    (fault, state): answer for fault, row in _ROWS.items() for state, answer in zip(CALLING, row, strict=True)
}


class Session:
    """The machine drawn above. ``jitter`` is where the lengths of pauses come from."""

    def __init__(self, jitter: Stream) -> None:
        self.state = State.NEW
        self.reachable = True
        """False from the first Gone until the server answers anything."""
        self._jitter = jitter
        self._pause: float | None = None
        self._attempts = 0
        self._held = ""
        self._ticket = pb.Ticket()
        self._blob = 0
        self._offset = 0
        self._pending = b""
        self._reason = ""
        self._failed = False
        self._anew = False

    @property
    def action(self) -> actions.Action:
        """What to do now."""
        return actions.Sleep(self._pause) if self._pause is not None else _ACTION[self.state](self)

    def on(self, event: events.Event) -> actions.Action:
        """Take in how the action went; gives the next one. Raises ValueError for an event that is no answer to it."""
        handlers = _PAUSED if self._pause is not None else _ON[self.state]
        handler = handlers.get(type(event))
        if handler is None:
            raise ValueError(f"Expected an answer to {self.action}, got {event}.")
        if self._pause is None and self.state in CALLING:
            self.reachable = not isinstance(event, events.Gone)
        handler(self, event)
        return self.action

    def _rested(self, _: events.Rested) -> None:
        self._pause = None

    def _enrolled(self, event: events.Enrolled) -> None:
        self._held, self._pending = event.held, event.pending
        self.state = State.RESUMING if event.pending else State.IDLE

    def _got_ticket(self, event: events.GotTicket) -> None:
        self._ticket, self._blob, self._offset = event.ticket, 0, 0
        self.state = State.FETCHING if event.ticket.recipe else State.REBUILDING

    def _got_wait(self, event: events.GotWait) -> None:
        self._attempts = 0
        self._rest(event.seconds)

    def _finished(self, event: events.GotFinished) -> None:
        self._reason = event.reason
        self.state = State.DONE

    def _got_blob(self, _: events.GotBlob) -> None:
        self._attempts = 0
        self._blob, self._offset = self._blob + 1, 0
        if self._blob == len(self._ticket.recipe):
            self.state = State.REBUILDING

    def _bad_blob(self, _: events.BadBlob) -> None:
        self._offset = 0
        self._rest()

    def _rebuilt(self, _: events.Rebuilt) -> None:
        self._attempts = 0
        self._held = self._ticket.model.hex()
        self.state = State.WORKING

    def _rebuild_failed(self, event: events.RebuildFailed) -> None:
        if self._held:
            self._held = ""
            self.state = State.IDLE
        else:  # the whole model was fetched, every byte of it confirmed, and this machine decodes it to something else
            self._decline(event.reason, final=True)

    def _trained(self, _: events.Trained) -> None:
        self._attempts = 0
        self._pending, self._offset = self._ticket.id, 0
        self.state = State.PUSHING

    def _cannot_train(self, event: events.CannotTrain) -> None:
        self._decline(event.reason, event.final)

    def _decline(self, reason: str, final: bool) -> None:
        self._reason, self._failed = reason, final
        self.state = State.DECLINING

    def _declined(self, _: events.Acknowledged) -> None:
        if self._failed:
            self.state = State.DONE
        else:
            self.state = State.IDLE
            self._rest()

    def _got_offset(self, event: events.GotOffset) -> None:
        self._offset = event.offset
        self.state = State.COMMITTING if event.acknowledged else State.PUSHING

    def _acknowledged(self, _: events.Acknowledged) -> None:
        self._attempts = 0
        self.state = State.COMMITTING

    def _settled(self, _: events.Settled) -> None:
        self._pending = b""
        self.state = State.IDLE

    def _gone(self, event: events.Gone) -> None:
        if self.state is State.FETCHING:
            self._offset = event.kept
        elif self.state is State.PUSHING:
            self.state = State.RESUMING
        self._rest()

    def _refused(self, event: events.Refused) -> None:
        answer = ON_FAULT.get((event.fault, self.state), Answer.AGAIN)
        if self.state is State.DECLINING and self._failed and answer is not Answer.AGAIN:
            self.state = State.DONE  # it was on its way out; the server does not mind
            return
        if answer in (Answer.DROP, Answer.ANEW):
            self._reason, self._anew = f"{event.fault}: {event.message}", answer is Answer.ANEW
            self.state = State.DROPPING
        elif answer is Answer.STOP:
            self._reason, self._failed = event.message or event.fault, True
            self.state = State.DONE
        else:
            self.state = _NEXT.get(answer, self.state)
            self._rest(event.retry_after)

    def _rest(self, seconds: float | None = None) -> None:
        if seconds is None:
            ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._attempts, 16))
            self._attempts += 1
            self._pause = ceiling * float(self._jitter.uniform(1)[0])
        else:
            self._pause = min(max(_SHORTEST_WAIT, seconds), _LONGEST_WAIT)


_Handler: TypeAlias = Callable[[Session, Any], None]
_NEXT: Final = {Answer.ASK: State.IDLE, Answer.OFFSET: State.RESUMING, Answer.ENROL: State.NEW}
_ACTION: Final[Mapping[State, Callable[[Session], actions.Action]]] = {
    State.NEW: lambda s: actions.DoEnrol(),  # noqa: ARG005
    State.IDLE: lambda s: actions.AskWork(s._held),
    State.FETCHING: lambda s: actions.Fetch(s._ticket.recipe[s._blob], s._offset),
    State.REBUILDING: lambda s: actions.Rebuild(s._ticket),
    State.WORKING: lambda s: actions.Train(s._ticket),
    State.DECLINING: lambda s: actions.Decline(s._ticket.id, s._reason),
    State.RESUMING: lambda s: actions.AskOffset(s._pending),
    State.PUSHING: lambda s: actions.Push(s._pending, s._offset),
    State.COMMITTING: lambda s: actions.Commit(s._pending),
    State.DROPPING: lambda s: actions.Drop(s._pending, s._reason, s._anew),
    State.DONE: lambda s: actions.Stop(s._reason, s._failed),
}
_CALL: Final[Mapping[type, _Handler]] = {events.Gone: Session._gone, events.Refused: Session._refused}
_PAUSED: Final[Mapping[type, _Handler]] = {events.Rested: Session._rested}
_ON: Final[Mapping[State, Mapping[type, _Handler]]] = {
    State.NEW: {events.Enrolled: Session._enrolled, **_CALL},
    State.IDLE: {
        events.GotTicket: Session._got_ticket,
        events.GotWait: Session._got_wait,
        events.GotFinished: Session._finished,
        **_CALL,
    },
    State.FETCHING: {events.GotBlob: Session._got_blob, events.BadBlob: Session._bad_blob, **_CALL},
    State.REBUILDING: {events.Rebuilt: Session._rebuilt, events.RebuildFailed: Session._rebuild_failed},
    State.WORKING: {events.Trained: Session._trained, events.CannotTrain: Session._cannot_train},
    State.DECLINING: {events.Acknowledged: Session._declined, **_CALL},
    State.RESUMING: {events.GotOffset: Session._got_offset, **_CALL},
    State.PUSHING: {events.Acknowledged: Session._acknowledged, **_CALL},
    State.COMMITTING: {events.Settled: Session._settled},
    State.DROPPING: {events.Settled: Session._settled},
    State.DONE: {},
}
if set(_ROWS) != set(pb.Fault.keys()) or set(_ACTION) != set(State) or set(_ON) != set(State):
    raise RuntimeError("The session's tables do not name every fault of the proto and every state.")
if any(not _CALL.keys() <= _ON[state].keys() for state in CALLING):
    raise RuntimeError("A state that calls the server must say what Gone and Refused do.")
