"""The live view of a run in a terminal, and one plain line per round where there is none (CI, a pipe, a log).

``Progress`` hears ``fedpress.server.events`` from any thread and draws with Rich, a few times a second, from Rich's own
thread. Leaving the ``with`` block, by Ctrl-C too, gives the terminal back as it was. Names and notes come from devices:
what is not printable is not printed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedpress.plan import Plan
from fedpress.server import events
from fedpress.server.watch import CLIENTS_LOSS, SERVER_LOSS
from fedpress.simulations import units
from fedpress.simulations.records import RoundRecord, curve, read_rounds, trained
from fedpress.simulations.results import ROUNDS_FILE

_FRAMES_PER_SECOND: Final = 6
_RECENT: Final = 5  # rounds whose mean duration foretells the rest
_FEW: Final = 4  # clients still at work, or failed, that are named and not only counted
_NOTES: Final = 4
_WIDTH: Final = 40  # columns of bar and sparkline
_STAY: Final = ("invited", "working")  # over the end of a round, where updates may be late
_STATES: Final = {"invited": False, "working": True, "pushed": False, "failed": True}  # in order; True: named if few


class Silent:
    """A watch that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def run(self, event: events.Event) -> None:
        """Let the event pass."""

    def baseline(self, event: events.Event) -> None:
        """Let the event pass."""

    def say(self, text: str) -> None:
        """Say nothing."""


class Progress:
    """A watch of one run: ``run`` and ``baseline`` are listeners, for the run and its uncompressed twin."""

    def __init__(self, plan: Plan, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self._virtual = plan.engine.clock == "virtual"
        self._began = clock()
        self._console = console or Console()
        self._lock = Lock()
        self._done: list[RoundRecord] = []
        self._twin: list[RoundRecord] = []
        self._since = clock()  # when the last round closed, or the run began
        self._ended: float | None = None
        self._round = self._enrolled = self._arriving = 0
        self._clients: dict[str, str] = {}
        self._notes: deque[str] = deque(maxlen=_NOTES)
        live = Live(get_renderable=self._render, console=self._console, refresh_per_second=_FRAMES_PER_SECOND)
        self._live = live if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def run(self, event: events.Event) -> None:
        """Hear an event of the run."""
        with self._lock:
            said = self._take(event)
        self._print(said)

    def baseline(self, event: events.Event) -> None:
        """Hear an event of the uncompressed run of the same seed."""
        with self._lock:
            if isinstance(event, events.RoundClosed):
                self._twin.append(RoundRecord.from_table(event.record))
        if isinstance(event, events.RunFinished):
            self._print(f"uncompressed, for comparison: {self._compared().plain}")

    def say(self, text: str) -> None:
        """Show a line."""
        self.run(events.Noted(text))

    def _print(self, text: str | None) -> None:
        if text and not self._live:
            self._console.print(Text(text), soft_wrap=True)

    def _take(self, event: events.Event) -> str | None:
        """Change the state; the line to print where there is no terminal."""
        match event:
            case events.ClientJoined():
                self._enrolled = event.enrolled
            case events.RoundOpened():
                self._open(event)
            case events.WorkTaken():
                self._clients[units.printable(event.name)] = "working"
            case events.UpdateCounted():
                self._clients[units.printable(event.name)] = "pushed"
                self._arriving += event.payload
            case events.ClientFailed():
                self._clients[units.printable(event.name)] = "failed"
                return self._note(f"{event.name}: {event.reason}")
            case events.RoundClosed():
                record = RoundRecord.from_table(event.record)
                self._done.append(record)
                self._since = self._clock()
                self._arriving = 0
                return line(record, self._plan.run.rounds, self._virtual)
            case events.Noted():
                return self._note(event.text)
            case events.Warned():
                return self._note(f"warning: {event.text}")
            case events.RunFinished():
                self._clients, self._ended = {}, self._clock()
                return self._note(event.reason)
        return None

    def _open(self, event: events.RoundOpened) -> None:
        """A round's first invitations, or more of them. Of a run that was resumed, read what was done before."""
        if event.round > 1 and not self._done and (self._plan.directory / ROUNDS_FILE).exists():
            self._done = [r for r in read_rounds(self._plan.directory) if r.round < event.round]
        if event.round != self._round:
            self._since = self._clock() if not trained(self._done) else self._since
            stay = _STAY if self._plan.cohort.patience and not event.evaluation else ()
            self._clients = {name: state for name, state in self._clients.items() if state in stay}
        self._round = event.round
        self._clients.update(dict.fromkeys(map(units.printable, event.cohort), "invited"))

    def _note(self, text: str) -> str:
        self._notes.append(units.printable(text))
        return self._notes[-1]

    def _render(self) -> RenderableType:
        with self._lock:
            plan = self._plan
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column()
            grid.add_row("round", self._bar())
            grid.add_row("accuracy", self._accuracy())
            if self._twin:
                grid.add_row("uncompressed", self._compared())
            grid.add_row("loss", self._loss())
            grid.add_row("clients", self._at_work())
            if self._done and (late := lateness(self._done[-1])):
                grid.add_row("updates", Text(late))
            grid.add_row("up", self._traffic("bytes_up", self._arriving))
            grid.add_row("down", self._traffic("bytes_down", 0))
            for note in self._notes:
                grid.add_row("", Text(note, style="yellow"))
            out = Table.grid()
            out.add_row(Text(f"{plan.run.name}: {plan.strategy.name} on {plan.task.name}", style="bold"))
            out.add_row(grid)
            return out

    def _bar(self) -> RenderableType:
        of, closed = self._plan.run.rounds, trained(self._done)
        here = closed[-1].round if closed else 0
        times = self._times(closed, of - here)
        row = Table.grid(padding=(0, 2))
        row.add_row(f"{min(of, self._round)}/{of}", ProgressBar(of, here, width=_WIDTH), Text(times))
        return row

    def _times(self, closed: list[RoundRecord], left: int) -> str:
        """How long it took, and how much longer it takes. In virtual time, of which there is no saying how fast it
        passes: both clocks."""
        now = self._clock() if self._ended is None else self._ended
        elapsed, waited = self._done[-1].elapsed if self._done else 0.0, now - self._since
        if self._virtual:
            return f"{units.duration(elapsed)} of virtual time in {units.duration(now - self._began)}"
        times = f"{units.duration(elapsed + waited)} so far"
        if closed and left:
            recent = [r.seconds for r in closed[-_RECENT:]]
            mean = sum(recent) / len(recent)
            times += f", {units.duration(mean * left - min(mean, waited))} left"
        return times

    def _accuracy(self) -> Text:
        values = [value for _, value in curve(self._done)]
        if not values:
            return Text("not measured yet", style="dim")
        sparks = units.sparkline(values, _WIDTH, ascii_only=self._console.options.ascii_only)
        return Text.assemble(
            (units.share(values[-1]), "bold green"), f"  {sparks}  ", (f"best {units.share(max(values))}", "dim")
        )

    def _compared(self) -> Text:
        rounds = trained(self._twin)
        values = [value for _, value in curve(self._twin)]
        accuracy = units.share(values[-1]) if values else "accuracy not measured"
        sent = sum(r.bytes_up + r.bytes_down for r in rounds)
        at = rounds[-1].round if rounds else 0
        return Text(f"{accuracy} after {at}/{self._plan.run.rounds} rounds and {units.size(sent)}", style="dim")

    def _loss(self) -> Text:
        served = [value for _, value in curve(self._done, "loss")]
        training = [r.train_loss for r in self._done if r.train_loss is not None]
        parts = [f"{served[-1]:.3f}"] if served else []
        parts += [f"{training[-1]:.3f} in training"] if training else []
        return Text(", ".join(parts) or "-")

    def _at_work(self) -> Text:
        if not self._clients:
            return Text(f"{self._enrolled} enrolled", style="dim")
        counts = Counter(self._clients.values())
        parts = []
        for state, named in _STATES.items():
            if counts[state]:
                names = sorted(name for name, now in self._clients.items() if now == state)
                few = f" ({', '.join(names)})" if named and len(names) <= _FEW else ""
                parts.append(f"{counts[state]} {state}{few}")
        return Text(", ".join(parts))

    def _traffic(self, key: str, arriving: int) -> Text:
        actual = sum(getattr(r, key) for r in self._done)
        uncompressed = sum(getattr(r, f"{key}_uncompressed") for r in self._done)
        return Text.assemble(
            units.size(actual),
            (f" of {units.size(uncompressed)}  ", "dim"),
            (units.ratio(uncompressed, actual), "bold cyan"),
            (f"  and {units.size(arriving)} in this round" if arriving else "", "dim"),
        )


def watching(plan: Plan, quiet: bool, console: Console | None = None) -> Silent | Progress:
    """A context manager that shows a run, or nothing."""
    return Silent() if quiet else Progress(plan, console)


def lateness(record: RoundRecord) -> str:
    """How many versions late a round's updates were; "" if none was."""
    late = record.staleness
    return f"staleness {sum(late) / len(late):.1f}, at most {late[-1]}" if any(late) else ""


def line(record: RoundRecord, of: int, virtual: bool = False) -> str:
    """One round in one plain line, ASCII. ``virtual``: so are its seconds."""
    head = "final evaluation" if record.evaluation else f"round {record.round:>{len(str(of))}}/{of}"
    measured = record.metrics or record.client_metrics
    parts = [head]
    if "accuracy" in measured:
        on_clients = "" if record.metrics else " on clients"
        parts.append(f"accuracy {units.share(measured['accuracy'])}{on_clients}")
    if "loss" in measured:
        parts.append(f"loss {measured['loss']:.3f}")
    elif {SERVER_LOSS, CLIENTS_LOSS} & set(record.not_finite):
        parts.append("loss not finite")
    if record.cohort:
        parts.append(f"clients {record.updates}/{record.cohort}")
        for way in ("up", "down"):
            sent, uncompressed = getattr(record, f"bytes_{way}"), getattr(record, f"bytes_{way}_uncompressed")
            if sent:
                parts.append(f"{way} {units.size(sent)} ({units.ratio(uncompressed, sent)})")
        parts += [
            f"{getattr(record, kind)} {kind}" for kind in ("late", "rejected", "declined") if getattr(record, kind)
        ]
    parts += [late] if (late := lateness(record)) else []
    parts.append(units.duration(record.seconds) + " of virtual time" * virtual)
    return "  ".join(parts)
