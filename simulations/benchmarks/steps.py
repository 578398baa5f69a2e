"""How far a benchmark is: a bar in a terminal, else a line per step."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedpress.plan import Plan
from fedpress.server import events


class Steps:
    """A context manager around a benchmark of ``total`` steps."""

    def __init__(self, console: Console, text: str, total: int = 1) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._console = console
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(escape(text), total=total)
        self._begun = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, text: str) -> None:
        """The next step begins."""
        self._say(text)
        self._bar.update(self._task, completed=self._begun, description=escape(text))
        self._begun += 1

    def begin(self, text: str, total: int) -> None:
        """A part of so many steps begins, each of which is an ``advance``."""
        self._say(text)
        self._bar.reset(self._task, total=total, description=escape(text))

    def advance(self) -> None:
        """One step is done."""
        self._bar.advance(self._task)

    def run(self, text: str, plan: Plan) -> events.Listener:
        """A run begins; what it gives listens to the run."""
        self.begin(text, plan.run.rounds)
        return self.hear

    def hear(self, event: events.Event) -> None:
        """An event of a run: each closed round is a step."""
        if isinstance(event, events.RoundClosed) and event.record["round"]:
            self.advance()

    def _say(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(escape(text), highlight=False, soft_wrap=True)
