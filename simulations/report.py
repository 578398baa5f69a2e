"""``report.html``: one file that shows a run, opened by double click, without a network and without scripts.

Tiles, plots, a table of clients and one of rounds, the plan in full and the command that repeats the run. The page
forbids itself every load and every script (Content-Security-Policy), and all that comes from devices is escaped.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from fedpress.errors import DataError, MissingExtra, PlanError
from fedpress.plan import load
from fedpress.server.tickets import learning_rate
from fedpress.simulations import distortion, units
from fedpress.simulations.records import RoundRecord, curve, latest, on_clients, own, stale, trained
from fedpress.simulations.results import REPORT_FILE, Result, Summary, warning_words

_TEMPLATE: Final = "report.html.j2"
_PLAN: Final = "plan.toml"
#: Columns of the table of rounds that are there if a round has something to say in them.
_COUNTS: Final = ("late", "rejected", "declined", "diverged")


class Tile(NamedTuple):
    """A headline number, what it is, and a line beneath it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ClientRow:
    """One client over the whole run. ``staleness``: versions that its updates were late, in the mean. ``accuracy``: the
    last one that it measured, on so many examples as it ``held_out``."""

    name: str
    updates: int
    staleness: float
    examples: int
    accuracy: float | None
    held_out: int
    bytes_up: int
    bytes_down: int
    bits_up: float
    train_seconds: float
    epsilon: float


def write_report(run_dir: Path, baseline: Path | None = None) -> Path:
    """Write ``report.html`` into a run's directory; its path. ``baseline``: directory of the uncompressed run.

    Raises DataError for a directory that holds no finished run, MissingExtra without jinja2 and matplotlib.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:  # pragma: no cover - the base install
        raise MissingExtra("The report", "report") from error
    from fedpress.simulations.audit.findings import Findings
    from fedpress.simulations.audit.plots import audit_plots
    from fedpress.simulations.client_plots import client_plots
    from fedpress.simulations.distortion_plots import distortion_plots
    from fedpress.simulations.plots import plots

    result = Result.read(run_dir)
    beside = Result.read(baseline) if baseline else None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        size=units.size, share=units.share, duration=units.duration, printable=units.printable, svg=Markup
    )
    page = environment.from_string(files("fedpress.simulations").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    both = [plots(result, beside), client_plots(result)]
    drawn = [
        *chain.from_iterable(reversed(both) if on_clients(result.rounds) else both),
        *distortion_plots(distortion.read(run_dir)),
        *audit_plots(Findings.read(run_dir)),
    ]
    html = page.render(_facts(result, beside), plots=drawn)
    path = run_dir / REPORT_FILE
    path.write_text(html, encoding="utf-8")
    return path


def _facts(result: Result, baseline: Result | None) -> dict[str, Any]:
    """What the template is given, plots aside."""
    summary = result.summary
    reference = baseline.summary.accuracy if baseline else summary.baseline_accuracy
    rows = client_rows(result.rounds, summary.parameters)
    clients_only = on_clients(result.rounds)
    alone = clients_only and reference is None
    spreads = own(result.rounds, summary.clients)
    try:
        plan = (result.run_dir / _PLAN).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"Expected the run's plan in '{result.run_dir / _PLAN}': {error}.") from error
    return {
        "summary": summary,
        "tiles": tiles(summary, reference, alone),
        "verdict": verdict(summary, reference, alone),
        "clients": rows,
        "held_out": any(row.held_out for row in rows),
        "private": any(row.epsilon > 0 for row in rows),
        "rounds": result.rounds,
        "on_clients": clients_only,
        "curves": {metric: dict(curve(result.rounds, metric)) for metric in ("accuracy", "loss")},
        "own": spreads if len(spreads) > 1 else {},
        "rates": rates(result.run_dir / _PLAN, result.rounds),
        "warnings": [*([summary.failed] if summary.failed else ()), *map(warning_words, summary.warnings)],
        "fidelity": any(r.fidelity_up is not None or r.fidelity_down is not None for r in result.rounds),
        "counts": [count for count in _COUNTS if any(getattr(r, count) for r in result.rounds)],
        "stale": stale(result.rounds),
        "plan": plan,
        "command": shlex.join(["fedpress", "simulate", str(result.run_dir / _PLAN), f"run.name={summary.name}-again"]),
    }


def rates(plan: Path, rounds: Sequence[RoundRecord]) -> dict[int, float]:
    """The learning rate of each round in which clients trained; {} for one that is constant, and for a plan that this
    version does not read."""
    try:
        known = load(plan)
    except PlanError:
        return {}
    found = {r.round: learning_rate(known, r.round) for r in trained(rounds)}
    return found if len(set(found.values())) > 1 else {}


def tiles(summary: Summary, reference: float | None, on_clients: bool = False) -> list[Tile]:
    """The headline numbers that the run has; ``reference`` is the uncompressed run's accuracy. ``on_clients``: clients
    alone measured it, and theirs is the run's accuracy: every client counts once."""
    s = summary
    up, down = units.ratio(s.bytes_up_uncompressed, s.bytes_up), units.ratio(s.bytes_down_uncompressed, s.bytes_down)
    found = []
    if s.accuracy is not None and not (on_clients and s.personal_accuracy is not None):
        best = f"best {units.share(s.best_accuracy)} in round {s.best_round}" if s.best_accuracy is not None else ""
        found.append(Tile("Accuracy", units.share(s.accuracy), best))
        if reference is not None:
            delta = units.points(s.accuracy - reference).replace("-", "\N{MINUS SIGN}").replace("points", "pts")
            found.append(Tile("vs uncompressed", delta, f"from {units.share(reference)}"))
    if s.personal_accuracy is not None:
        apart = (
            f"deviation {units.points(s.personal_deviation).lstrip('+')}" if s.personal_deviation is not None else ""
        )
        found.append(Tile("On clients' own data", units.share(s.personal_accuracy), apart or "mean over clients"))
    if s.personal_worst_decile is not None:
        found.append(Tile("Worst tenth", units.share(s.personal_worst_decile), "of clients, on their own data"))
    found += [
        Tile("Less upload", up, f"{units.size(s.bytes_up)} of {units.size(s.bytes_up_uncompressed)}"),
        Tile("Less download", down, f"{units.size(s.bytes_down)} of {units.size(s.bytes_down_uncompressed)}"),
        Tile("Bits per parameter", f"{s.bits_up:.2f} up", f"{s.bits_down:.2f} down, of 32"),
    ]
    f = s.fidelity
    if f.up is not None:
        found.append(Tile("Fidelity up", units.share(f.up), f"worst round {units.share(f.worst or 0.0)}"))
    if f.down is not None:
        found.append(Tile("Fidelity down", units.share(f.down), "of what downloads were given"))
    if s.epsilon is not None:
        found.append(Tile("Epsilon spent", f"{s.epsilon:.2f}", "at most, by any client"))
    return [tile._replace(note=tile.note.replace(" %", "\N{NO-BREAK SPACE}%")) for tile in found]


def verdict(summary: Summary, reference: float | None, on_clients: bool = False) -> str:
    """The run in one sentence. See ``tiles``."""
    s = summary
    up, down = units.ratio(s.bytes_up_uncompressed, s.bytes_up), units.ratio(s.bytes_down_uncompressed, s.bytes_down)
    sent = f"{up} less upload and {down} less download than uncompressed FedAvg"
    if not (s.bytes_up or s.bytes_down):
        sent = "nothing sent"
    if s.accuracy is None:
        return f"A run with {sent}."
    versus = f" ({units.share(reference)} uncompressed)" if reference is not None else ""
    if on_clients and s.personal_accuracy is not None:
        return f"{units.share(s.personal_accuracy)} accuracy on clients' own data with {sent}."
    return f"{units.share(s.accuracy)} accuracy{versus} with {sent}."


def client_rows(rounds: Sequence[RoundRecord], parameters: int) -> list[ClientRow]:
    """Each client's totals, by name (writer-2 before writer-10); ``train_seconds`` is per update.

    ``parameters``: of the model that travels.
    """
    rows = []
    for name, last in sorted(latest(rounds).items(), key=lambda item: _natural(item[0])):
        records = [r.clients[name] for r in rounds if name in r.clients]
        pushed = [c for c in records if c.bytes_up or c.examples]
        up = sum(c.bytes_up for c in pushed)
        updates = sum(max(1, len(c.staleness)) for c in pushed)
        late = [s for c in records for s in c.staleness]
        rows.append(
            ClientRow(
                name=name,
                updates=updates,
                staleness=sum(late) / len(late) if late else 0.0,
                examples=max(c.examples for c in records),
                accuracy=last.metrics.get("accuracy"),
                held_out=last.held_out,
                bytes_up=up,
                bytes_down=sum(c.bytes_down for c in records),
                bits_up=8 * up / (parameters * updates) if pushed and parameters else 0.0,
                train_seconds=sum(c.train_seconds for c in pushed) / updates if pushed else 0.0,
                epsilon=max(c.epsilon for c in records),
            )
        )
    return rows


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders runs of digits by their value: longer is larger, leading zeros aside."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part.lstrip("0")), part) if part[:1].isdigit() else (0, part) for part in parts]
