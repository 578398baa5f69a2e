"""Runs that do not do their job say so: in records, summary, closing table and report, and at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedpress.errors import PlanError
from fedpress.plan import Plan, load
from fedpress.server.events import ClientFailed, Event, RoundClosed, Warned
from fedpress.server.updates import Updates
from fedpress.server.watch import SERVER_LOSS, RunWarning
from fedpress.simulations.engines import simulate
from fedpress.simulations.records import ROUNDS_FILE, ClientRecord, RoundRecord, loss_is_lost, read_rounds
from fedpress.simulations.report import write_report
from fedpress.simulations.results import Counted, Fidelity, Result, Summary, summarise, table

TASK = """
import numpy as np, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x) if self.training else {evaluated}
def model():
    net = Net()
    {after}
    return net
def data(_):
    r = np.random.default_rng(0)
    x = r.normal(size=(120, 4)).astype("f4")
    y = x[:, :3].argmax(1)
    return (x[:80], y[:80]), (x[80:], y[80:])
"""


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """``plan("train.lr=1", ...)``: a plan of a tiny task; ``evaluated``: what its model gives when it is measured."""

    def make(*words: str, evaluated: str = "self.layer(x)", after: str = "pass", name: str = "run") -> Plan:
        task = tmp_path / "tiny.py"
        task.write_text(TASK.format(evaluated=evaluated, after=after), encoding="utf-8")
        keys = (f"task.name={task}", f"run.out={tmp_path}", f"run.name={name}", "engine.name=inline")
        sizes = ("run.rounds=3", "clients.count=2", "clients.partition=iid", "watch.still_rounds=2")
        return load(None, [*keys, *sizes, *words])

    return make


def kinds(result: Result) -> list[str]:
    return [warning.kind for warning in result.summary.warnings]


def text(result: Result) -> str:
    """The closing table, as one line of words."""
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table(result))
    return " ".join(captured.get().replace("│", " ").split())


def test_an_ordinary_run_shows_its_fidelity_and_warns_of_nothing(plan: Callable[..., Plan]) -> None:
    result = simulate(plan("run.rounds=5"))
    s = result.summary
    assert (s.failed, s.warnings) == (None, ())
    for record in result.rounds[1:6]:
        for share in (record.fidelity_up, record.fidelity_aggregate, record.fidelity_down):
            assert share is not None
            assert 0.3 < share < 1
        assert record.moved is not None
        assert record.moved > 1e-4
        for client in record.clients.values():
            assert 0 <= client.lost < client.given
        lost, given = (sum(getattr(c, key) for c in record.clients.values()) for key in ("lost", "given"))
        assert record.fidelity_up == pytest.approx(1 - lost / given)
    assert s.fidelity.worst == min(r.fidelity_up or 1.0 for r in result.rounds)
    assert "fidelity up " in text(result)
    assert "warning" not in text(result)
    assert Result.read(result.run_dir) == result


def test_uncompressed_all_arrives(plan: Callable[..., Plan]) -> None:
    result = simulate(plan("upload.codec=raw", "download.codec=raw", "download.mode=full"))
    assert result.summary.fidelity == Fidelity(1.0, 1.0, 1.0, 1.0)
    assert "up 100.0 % (worst round 100.0 %)" in text(result)


def test_how_a_strategy_reads_updates_does_not_change_what_arrived_of_their_mean(plan: Callable[..., Plan]) -> None:
    """FedNova divides by steps, SCAFFOLD derives variates: with as many steps everywhere it is what it is in FedAvg."""
    words = ("run.rounds=1", "train.max_steps=2", "strategy.weighting=uniform")
    found = [simulate(plan(*words, f"strategy.name={s}", name=s)).rounds[1] for s in ("fedavg", "fednova", "scaffold")]
    assert found[0].fidelity_aggregate is not None
    for record in found[1:]:
        assert record.fidelity_aggregate == pytest.approx(found[0].fidelity_aggregate, rel=1e-4)


def test_what_local_training_does_not_send_is_not_missed(plan: Callable[..., Plan]) -> None:
    result = simulate(plan("strategy.name=local", "run.rounds=4"))
    assert (result.summary.failed, result.summary.warnings, result.summary.fidelity) == (None, (), Fidelity())
    assert "fidelity" not in text(result)


@pytest.mark.parametrize("way", ["up", "down"])
def test_less_than_the_floor_is_said_in_the_round_and_stands_in_the_table(plan: Callable[..., Plan], way: str) -> None:
    key = {"up": "upload", "down": "download"}[way]
    codec = {"up": "topk:0.1", "down": "nmse:0.9"}[way]
    heard: list[Event] = []
    result = simulate(plan(f"{key}.codec={codec}", "watch.floor=0.95"), heard.append)
    assert f"fidelity_{way}" in kinds(result)
    said = [event for event in heard if isinstance(event, Warned) and event.kind == f"fidelity_{way}"]
    assert [event.round for event in said] == [1]
    closed = [event.record["round"] for event in heard[: heard.index(said[0])] if isinstance(event, RoundClosed)]
    assert closed == [0, 1]
    assert result.summary.failed is None
    assert f"({key}.codec)" in text(result)
    assert "Seen in 3 rounds, first in round 1." in text(result)


@pytest.mark.parametrize(
    "engine", [(), ("engine.clock=virtual",), ("cohort.buffer=1",)], ids=["inline", "virtual", "buffer"]
)
def test_updates_of_zeros_are_named_and_a_model_that_never_moved_fails_the_run(
    plan: Callable[..., Plan], engine: tuple[str, ...]
) -> None:
    result = simulate(plan("train.lr=1e-30", *engine))
    assert kinds(result) == ["still"]
    (warning,) = result.summary.warnings
    assert (warning.round, warning.rounds) == (2, 2)
    assert "train.lr" in warning.text
    assert "never moved" in (result.summary.failed or "")
    assert "failed The model never moved" in text(result)


def test_updates_of_which_nothing_arrives_are_named(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Updates.decode

    def deaf(self: Updates, *args: Any) -> Any:
        update, memory = decode(self, *args)
        return {name: 0 * array for name, array in update.items()}, memory

    monkeypatch.setattr(Updates, "decode", deaf)
    result = simulate(plan())
    assert "arrival" in kinds(result)
    assert [r.fidelity_aggregate for r in result.rounds[1:4]] == [0.0] * 3
    assert result.summary.failed is not None


def test_a_loss_that_is_no_number_is_null_named_and_fails_the_run(plan: Callable[..., Plan]) -> None:
    result = simulate(plan(evaluated='self.layer(x) * float("nan")'))
    lines = (result.run_dir / ROUNDS_FILE).read_text().splitlines()
    strict = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]
    assert all(line["metrics"]["loss"] is None for line in strict[:4])
    assert all(SERVER_LOSS in r.not_finite for r in result.rounds[:4])
    assert kinds(result) == ["loss"]
    assert result.summary.warnings[0].round == 0
    assert "loss is NaN" in (result.summary.failed or "")


def test_a_run_that_diverged_everywhere_fails(plan: Callable[..., Plan]) -> None:
    result = simulate(plan("train.lr=1e30", "train.epochs=3"))
    assert result.summary.rounds == 0
    assert "diverged" in (result.summary.failed or "")
    assert Summary.read(result.run_dir) == result.summary


def test_a_training_loss_that_is_no_number_is_declined_though_the_model_is_finite(plan: Callable[..., Plan]) -> None:
    made = plan()
    with Path(made.task.name).open("a", encoding="utf-8") as task:
        task.write("\ndef loss(out, y): return torch.nn.functional.cross_entropy(out, y) + float('nan')\n")
    heard: list[Event] = []
    result = simulate(made, heard.append)
    reasons = [event.reason for event in heard if isinstance(event, ClientFailed)]
    assert reasons == ["declined: training diverged: the loss is not finite; lower train.lr"] * 2
    assert "diverged" in (result.summary.failed or "")


def test_who_spent_its_budget_did_not_diverge(plan: Callable[..., Plan]) -> None:
    words = ("privacy.mode=local", "privacy.noise_multiplier=0.5", "privacy.max_epsilon=25", "run.rounds=40")
    result = simulate(plan(*words, "privacy.delta=1e-3", "train.batch_size=20"))
    assert 0 < result.summary.rounds < 40
    assert result.summary.failed is None


def test_who_begins_at_the_target_has_done_its_job(plan: Callable[..., Plan]) -> None:
    result = simulate(plan("stop.target=0.01"))
    assert (result.summary.rounds, result.summary.failed) == (0, None)


def test_a_model_that_nothing_trains_is_refused_by_its_task(plan: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError, match=r"\(task\.name\)"):
        simulate(plan(after="net.requires_grad_(False)"))


@pytest.mark.parametrize("codec", ["fp8:16", "ef+nf4:64", "qsgd:16,bucket=512", "randomk:0.5,block=100"])
@pytest.mark.parametrize("key", ["upload.codec", "download.codec"])
def test_a_block_larger_than_the_model_is_refused_by_key(plan: Callable[..., Plan], codec: str, key: str) -> None:
    if key == "download.codec" and "ef+" in codec:
        codec = codec.removeprefix("ef+")
    with pytest.raises(PlanError, match=rf"15 numbers.*'{codec.split(',')[0].replace('+', '.')}.*\({key}\)"):
        simulate(plan(f'{key}="{codec}"'))


def test_a_block_larger_than_a_tensor_is_not(plan: Callable[..., Plan]) -> None:
    assert simulate(plan("upload.codec=fp8:15", "run.rounds=1")).summary.failed is None


def test_a_codec_that_feedback_cannot_stand_around_is_refused_by_key(plan: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError, match=r"\(upload\.codec\)"):
        plan("upload.codec=ef+qsgd:1")


def test_a_restart_keeps_warnings_and_counts_on(plan: Callable[..., Plan]) -> None:
    whole = simulate(plan("train.lr=1e-30", "run.rounds=4", name="whole"))

    class Cut(Exception):
        pass

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 2:
            raise Cut

    keys = ("train.lr=1e-30", "run.rounds=4")
    with pytest.raises(Cut):
        simulate(plan(*keys, name="cut"), cut)
    heard: list[Event] = []
    result = simulate(plan(*keys, name="cut"), heard.append, resume=True)
    assert result.summary.warnings == whole.summary.warnings
    assert result.summary.failed == whole.summary.failed
    assert [event.kind for event in heard if isinstance(event, Warned)] == ["still"]
    again = simulate(plan(*keys, name="cut"), resume=True)
    assert (again.summary.warnings, again.summary.failed) == (whole.summary.warnings, whole.summary.failed)


def test_central_privacy_lets_no_fidelity_of_updates_out(plan: Callable[..., Plan]) -> None:
    words = ("privacy.mode=central", "cohort.selection=poisson", "strategy.weighting=uniform")
    result = simulate(plan(*words, "evaluate.clients_every=0", "cohort.fraction=0.9", "clients.count=4"))
    for record in result.rounds[1:]:
        assert (record.fidelity_up, record.fidelity_aggregate, record.clients) == (None, None, {})
        assert record.fidelity_down is not None


# -- what is written down ---------------------------------------------------------------------------------------------


def test_warnings_and_fidelity_survive_a_round_trip() -> None:
    client = ClientRecord(given=4.0, lost=1.0)
    warning = RunWarning("still", 3, "Expected a model that moves.")
    record = RoundRecord(3, fidelity_up=0.75, moved=0.1, not_finite=("metrics.loss",), warnings=(warning,), diverged=1,
                         clients={"a": client})  # fmt: skip
    assert RoundRecord.from_json(record.to_json()) == record


def test_a_summary_counts_warnings_by_kind_and_means_over_rounds() -> None:
    def record(number: int, share: float, *found: str) -> RoundRecord:
        warnings = tuple(RunWarning(kind, number, f"{kind} {number}") for kind in found)
        return RoundRecord(number, updates=1, fidelity_up=share, moved=0.1, warnings=warnings)

    rounds = [RoundRecord(0), record(1, 0.5), record(2, 0.1, "fidelity_up"), record(3, 0.3, "still", "fidelity_up")]
    s = summarise(load(), rounds, parameters=1, model="", clients=1, engine="inline")
    assert s.warnings == (Counted("fidelity_up", 2, 2, "fidelity_up 3"), Counted("still", 3, 1, "still 3"))
    assert s.fidelity == Fidelity(up=pytest.approx(0.3), worst=0.1)
    assert s.failed is None


def test_only_the_last_loss_counts_and_the_servers_before_clients() -> None:
    good, bad = RoundRecord(1, metrics={"loss": 1.0}), RoundRecord(2, not_finite=(SERVER_LOSS,))
    assert loss_is_lost([good, bad])
    assert not loss_is_lost([bad, good])
    told = RoundRecord(1, client_metrics={"loss": 1.0})
    untold = RoundRecord(2, client_metrics={"accuracy": 0.1}, not_finite=("client_metrics.loss",))
    assert loss_is_lost([told, untold])
    assert not loss_is_lost([untold])
    assert not loss_is_lost([told, untold, good])


def test_the_report_boxes_warnings_and_draws_fidelity(make_run: Callable[..., Path]) -> None:
    run = make_run("demo", count=4)
    assert "fidelity" not in write_report(run).read_text(encoding="utf-8").lower()
    rounds = [replace(r, fidelity_up=0.0, fidelity_down=None) if r.round else r for r in read_rounds(run)]
    (run / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in rounds))
    found = Counted("arrival", 2, 3, "Expected <b>updates</b>.")
    replace(Summary.read(run), warnings=(found,), fidelity=Fidelity(up=0.0, worst=0.0)).write(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert 'class="warnings"' in page
    assert "Expected &lt;b&gt;updates&lt;/b&gt;. Seen in 3 rounds, first in round 2." in page
    assert 'id="fidelity"' in page
    assert "This run failed" not in page
    replace(Summary.read(run), failed="The run diverged.").write(run)
    assert "This run failed" in write_report(run).read_text(encoding="utf-8")
