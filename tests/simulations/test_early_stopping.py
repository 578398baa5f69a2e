"""Runs that end early: at the same round after any crash, with the best model kept and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.errors import PlanError
from fedpress.params import Tensors, content_hash, from_bytes
from fedpress.plan import Plan, load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.events import BestModel, Event, RoundClosed
from fedpress.simulations.engines import simulate
from fedpress.simulations.engines.inline import InlineLink
from fedpress.simulations.problem import Problem
from fedpress.simulations.records import curve, trained
from fedpress.simulations.results import Result

#: Digits learn fast, then lose a little of it again: the learning rate is far too high for where they get to.
SETTINGS = ("run.rounds=40", "clients.count=3", "train.lr=0.7", "train.epochs=3", "stop.patience=4")
#: The server cannot measure such models, clients' heads being their own: their held-out data must do.
PERSONAL = ("strategy.name=fedper", 'strategy.personal=["head.*"]')


def plan(out: Path, *overrides: str) -> Plan:
    return load(None, [f"run.out={out}", "engine.name=inline", "server.long_poll_s=2", *SETTINGS, *overrides])


def digest(model: Tensors) -> str:
    """What a model is, whatever the order of its tensors."""
    return content_hash(dict(sorted(model.items())))


def checkpoint(result: Result, name: str | None) -> tuple[str, int]:
    """A checkpoint's content and the round it says it is of."""
    assert name is not None
    data = (result.run_dir / name).read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return digest(from_bytes(data)), int(head["__metadata__"]["round"])


def best(result: Result) -> tuple[str, int]:
    return checkpoint(result, result.summary.best_checkpoint)


@pytest.mark.parametrize(
    "how",
    [(), PERSONAL, ("stop.metric=loss",), ("engine.clock=virtual",), ("engine.clock=virtual", "cohort.buffer=2")],
    ids=["server", "clients", "loss", "virtual", "buffered"],
)
def test_patience_ends_a_run_and_keeps_the_best_model(tmp_path: Path, how: tuple[str, ...]) -> None:
    models: dict[int, str] = {}

    def hear(event: Event) -> None:
        if isinstance(event, RoundClosed) and not event.record.get("evaluation"):
            models[event.record["round"]] = digest(event.model)

    result = simulate(plan(tmp_path, *how), hear)
    s, metric = result.summary, "loss" if "stop.metric=loss" in how else "accuracy"
    assert s.rounds < 40
    assert s.stopped is not None
    assert f"{metric} has not improved" in s.stopped
    values = dict(curve(result.rounds, metric))
    assert max(values) - max(r for r in values if r <= (s.best_round or 0)) >= 4
    assert values[s.best_round or 0] == (min if metric == "loss" else max)(values.values())
    assert best(result) == (models[s.best_round or 0], s.best_round)
    assert checkpoint(result, "checkpoints/last.safetensors") == (models[s.rounds], s.rounds)


def test_a_target_ends_a_run_that_reached_it(tmp_path: Path) -> None:
    result = simulate(plan(tmp_path, "stop.patience=0", "stop.target=0.6"))
    values = [value for _, value in curve(result.rounds)]
    assert values[-1] >= 0.6 > max(values[:-1])
    assert result.summary.best_round == result.summary.rounds < 40
    assert "the target was 0.6" in (result.summary.stopped or "")


@pytest.mark.parametrize("how", [(), PERSONAL], ids=["server", "clients"])
@pytest.mark.parametrize("kind", [BestModel, RoundClosed])
def test_a_run_that_crashed_ends_where_it_would_have(tmp_path: Path, how: tuple[str, ...], kind: type) -> None:
    """Cut at every second of these events, resumed each time, until it is over."""
    whole = simulate(plan(tmp_path / "whole", *how))

    class Cut(Exception):
        pass

    heard = 0

    def cut(event: Event) -> None:
        nonlocal heard
        heard += isinstance(event, kind)
        if isinstance(event, kind) and heard % 2 == 0:
            raise Cut

    result: Any = None
    resume = False
    for _ in range(100):
        try:
            result = simulate(plan(tmp_path / "cut", *how), cut, resume=resume)
            break
        except Cut:
            resume = True
    assert heard > 2
    for key in ("rounds", "model", "best_round", "best_accuracy", "stopped"):
        assert getattr(result.summary, key) == getattr(whole.summary, key), key
    assert best(result) == best(whole)
    again = simulate(plan(tmp_path / "cut", *how), resume=True)  # it is over, and stays so
    assert (again.summary.rounds, again.summary.stopped) == (whole.summary.rounds, whole.summary.stopped)


def test_more_patience_takes_a_stopped_run_further(tmp_path: Path) -> None:
    first = simulate(plan(tmp_path))
    second = simulate(plan(tmp_path, "stop.patience=6"), resume=True)
    assert second.summary.rounds > first.summary.rounds
    assert len(trained(second.rounds)) == second.summary.rounds


def test_real_processes_end_at_the_same_round_with_the_same_model(tmp_path: Path) -> None:
    inline = simulate(plan(tmp_path / "inline", "stop.patience=0", "stop.target=0.7"))
    real = simulate(plan(tmp_path / "real", "stop.patience=0", "stop.target=0.7", "engine.name=processes"))
    for key in ("rounds", "model", "best_round", "stopped"):
        assert getattr(inline.summary, key) == getattr(real.summary, key), key
    assert best(inline) == best(real)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_metric_that_nobody_measures_is_refused_at_once(tmp_path: Path, engine: str) -> None:
    with pytest.raises(PlanError, match="Did you mean 'accuracy'"):
        simulate(plan(tmp_path, "stop.metric=acuracy", f"engine.name={engine}"))


def test_what_nobody_asked_a_device_for_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = InlineLink.push

    def boast(link: InlineLink, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        header.report.others["fame"] = 1.0
        if header.report.held_out == 0:
            header.report.held_out, header.report.accuracy = 1, 1.0
        return real(link, header, payload)

    monkeypatch.setattr(InlineLink, "push", boast)
    keys = ("strategy.name=local", "evaluate.clients_every=2", "stop.target=0.999", "run.rounds=4")
    result = simulate(plan(tmp_path, *keys))
    assert result.summary.stopped is None
    assert [r.round for r in result.rounds if r.train_loss is not None] == [1, 2, 3, 4]
    assert not any(c.metrics for r in result.rounds if r.round in (2, 4) for c in r.clients.values())


def test_clients_measure_where_the_server_has_no_test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Problem, "evaluator", lambda self: lambda model: {})
    result = simulate(plan(tmp_path))
    assert not any(r.metrics for r in result.rounds)
    assert "accuracy has not improved" in (result.summary.stopped or "")
    assert best(result)[1] == result.summary.best_round


def test_without_early_stopping_all_rounds_run_and_the_best_is_still_kept(tmp_path: Path) -> None:
    result = simulate(plan(tmp_path, "stop.patience=0", "run.rounds=6"))
    assert (result.summary.rounds, result.summary.stopped) == (6, None)
    values = [value for _, value in curve(result.rounds)]
    assert best(result)[1] == result.summary.best_round == int(np.argmax(values))
