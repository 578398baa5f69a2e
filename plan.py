"""One typed TOML file describes one run: its sections, what they say about each other, how it is read and written.

A plan is refused before anything starts; the message names the key, the value, what was expected and the closest known
name. Overrides are ``section.key=value`` with a TOML value (bare words are taken as strings).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from fedpress.errors import PlanError, closest
from fedpress.sections import (
    Audit,
    Clients,
    Cohort,
    Download,
    Engine,
    Evaluate,
    Fleet,
    Privacy,
    Run,
    Section,
    Server,
    Ship,
    Stop,
    StrategySection,
    TaskSection,
    Train,
    Upload,
    Watch,
)


class Plan(Section):
    """One run."""

    run: Run = Run()
    task: TaskSection = TaskSection()
    clients: Clients = Clients()
    train: Train = Train()
    cohort: Cohort = Cohort()
    strategy: StrategySection = StrategySection()
    upload: Upload = Upload()
    download: Download = Download()
    evaluate: Evaluate = Evaluate()
    stop: Stop = Stop()
    watch: Watch = Watch()
    privacy: Privacy = Privacy()
    server: Server = Server()
    engine: Engine = Engine()
    fleet: Fleet = Fleet()
    ship: Ship = Ship()
    audit: Audit = Audit()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.train.trainer == "idle" and self.privacy.mode == "local":
            raise ValueError("expected train.trainer = 'torch' or 'numpy' with privacy.mode = 'local', got 'idle'")
        if self.train.trainer == "numpy" and self.train.optimizer != "sgd":
            raise ValueError(
                f"expected train.optimizer = 'sgd' with train.trainer = 'numpy', got '{self.train.optimizer}'"
            )
        if self.engine.clock == "virtual" and self.engine.name != "inline":
            raise ValueError(
                f"expected engine.name = 'inline' with engine.clock = 'virtual', got '{self.engine.name}', "
                "whose clients take real time"
            )
        if self.cohort.min_updates > self.cohort_size(self.clients.count):
            raise ValueError(
                f"expected cohort.min_updates of at most the cohort ({self.cohort_size(self.clients.count)}), "
                f"got {self.cohort.min_updates}"
            )
        by_seconds = self.clients.availability != "always" and self.clients.availability_in == "seconds"
        if by_seconds and (self.engine.name, self.engine.clock) == ("inline", "wall"):
            raise ValueError("expected engine.clock = 'virtual' with clients.availability_in = 'seconds' inline")
        if self.stop.early and not (self.evaluate.server_every or self.evaluate.clients_every):
            raise ValueError(
                "expected evaluate.server_every or evaluate.clients_every > 0 with stop.patience or stop.target: "
                "nobody would measure"
            )
        if self.train.warmup_rounds >= self.run.rounds:
            raise ValueError(
                f"expected train.warmup_rounds of fewer than run.rounds ({self.run.rounds}), "
                f"got {self.train.warmup_rounds}"
            )
        if self.cohort.selection == "poisson" and self.privacy.mode != "central":
            raise ValueError("expected privacy.mode = 'central' with cohort.selection = 'poisson'")
        if self.engine.baseline and self.privacy.ledger is not None:
            raise ValueError(
                "expected engine.baseline = false with privacy.ledger: the uncompressed twin would be another release "
                "to the same clients, outside of it"
            )
        if self.audit.gate and self.privacy.mode == "none" and not (self.audit.max_auc or self.audit.max_epsilon):
            raise ValueError(
                "expected audit.max_auc or audit.max_epsilon > 0 with audit.gate = true: a run without privacy "
                "claims nothing that it could be held to"
            )
        self._paced()
        return self

    def _paced(self) -> None:
        """Raise ValueError for keys of the cohort that do not go together."""
        cohort, history = self.cohort, self.download.history
        if cohort.buffer:
            alone = {"late": "drop", "over_select": 1.0}
            reason = "with cohort.buffer > 0, which has no cohorts and folds every update"
        else:
            alone = {"concurrency": 0}
            reason = "with cohort.buffer = 0: rounds have a cohort (cohort.fraction)"
        for key, value in alone.items():
            if (got := getattr(cohort, key)) != value:
                raise ValueError(f"expected cohort.{key} = {value!r} {reason}, got {got!r}")
        least, most = self.privacy.min_cohort, cohort.buffer or self.cohort_size(self.clients.count)
        if least > most:
            raise ValueError(f"expected privacy.min_cohort of at most the updates of a round ({most}), got {least}")
        if cohort.buffer and cohort.min_updates > cohort.buffer:
            raise ValueError(f"expected cohort.min_updates of at most cohort.buffer, got {cohort.min_updates}")
        if cohort.patience >= history:
            raise ValueError(
                f"expected cohort.max_staleness below download.history ({history}), got {cohort.max_staleness}: late "
                "updates are decoded with the versions they build on"
            )

    def cohort_size(self, enrolled: int) -> int:
        """Clients whose updates make a round, of ``enrolled``: at least one."""
        return max(1, round(self.cohort.fraction * enrolled))

    def concurrency(self, enrolled: int) -> int:
        """Clients that train at the same time, of ``enrolled``, where there are no cohorts."""
        return self.cohort.concurrency or self.cohort_size(enrolled)

    @property
    def directory(self) -> Path:
        """Where this run's files are."""
        return self.run.out / self.run.name


def load(path: Path | None = None, overrides: Iterable[str] = ()) -> Plan:
    """The plan in a TOML file (None: all defaults) with ``section.key=value`` overrides. Raises PlanError."""
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"Cannot read the plan '{path}': {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise PlanError(f"The plan '{path}' is not TOML: {error}.") from error
    for override in overrides:
        _apply(table, override)
    return from_table(table)


def from_table(table: Mapping[str, Any]) -> Plan:
    """The plan a TOML table describes. Raises PlanError with one line per fault."""
    try:
        return Plan.model_validate(dict(table))
    except ValidationError as error:
        raise PlanError("\n".join(explain(dict(fault)) for fault in error.errors())) from error


def sections() -> Mapping[str, type[BaseModel]]:
    """Section names and their models, in order: what documents the plan."""
    return {name: type(field.default) for name, field in Plan.model_fields.items()}


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or not name:
        raise PlanError(f"Expected an override as section.key=value, got '{override}'.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    inner = table.setdefault(section, {})
    if not isinstance(inner, dict):
        raise PlanError(f"Expected a table [{section}], got {inner!r}.")
    inner[name] = value


def explain(fault: Mapping[str, Any]) -> str:
    """One of pydantic's faults, as a line that names key, value and what was expected."""
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parent, last = fault["loc"]
        known = sections()[parent[0]].model_fields if parent else Plan.model_fields
        return f"Unknown key '{where}'. {closest(str(last), known)}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message if message.lower().startswith("expected") else f"Expected {message}"
    expected = expected[0].upper() + expected[1:]
    if not where:
        return f"{expected}."
    return f"{expected.rstrip('.')}, got {fault['input']!r} ({where})."


def to_toml(plan: Plan) -> str:
    """The whole plan as TOML: what ``load`` reads back as the same plan."""
    lines = []
    for name in sections():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in getattr(plan, name) if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """One value. JSON's strings, numbers and arrays are TOML's too; paths are strings."""
    return json.dumps(value, default=str)
