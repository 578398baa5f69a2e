"""``fedpress bench zoo``: every cell is a plan that can run, raw learns, and what is lost is computed right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpress import torch_model
from fedpress.cli import app
from fedpress.errors import PlanError
from fedpress.plan import Plan
from fedpress.sections import Download, Upload
from fedpress.server.strategies import STRATEGIES, build
from fedpress.simulations.benchmarks.zoo import cells, measures, runs, strategies, tables
from fedpress.simulations.benchmarks.zoo.arms import DEFAULT, RAW, parse
from fedpress.simulations.benchmarks.zoo.cells import CELLS
from fedpress.simulations.benchmarks.zoo.measures import by_round, compare
from fedpress.simulations.benchmarks.zoo.tasks import pictures, tokens
from fedpress.simulations.benchmarks.zoo.tasks import tables as tables_of
from fedpress.simulations.records import RoundRecord
from fedpress.simulations.results import Result, Summary
from fedpress.simulations.tasks import load_task
from fedpress.task import Data

SMALL = cells.chosen("all", small=True)


def differing(one: Plan, other: Plan) -> set[str]:
    return {name for name, section in one if section != getattr(other, name)}


def test_cells_are_of_two_halves_that_differ_in_kind(tmp_path: Path) -> None:
    planned = runs.planned(cells.chosen("all"), parse([]), [0], tmp_path)
    assert len({plan.directory for plan in planned.values()}) == len(planned) == 2 * len(CELLS)
    for half in cells.HALVES:
        plans = [plan for run, plan in planned.items() if run.half == half and run.arm == RAW]
        assert len(plans) >= 16
        assert {plan.train.optimizer for plan in plans} == {"sgd", "adam", "adamw"}
        assert {plan.clients.partition for plan in plans} == {"iid", "dirichlet", "natural"}
        assert any(plan.train.momentum for plan in plans)
        assert any(plan.cohort.fraction == 0.1 for plan in plans)
        assert max(plan.train.lr for plan in plans) >= 100 * min(plan.train.lr for plan in plans)
        assert any(plan.stop.metric == "r2" for plan in plans)
    tasks = Counter((run.half, plan.task.name) for run, plan in planned.items() if run.arm == RAW)
    assert max(tasks.values()) == 2


def test_arms_differ_in_codecs_alone(tmp_path: Path) -> None:
    for name in CELLS:
        raw, default = runs.planned([name], parse([]), [0], tmp_path).values()
        assert differing(raw, default) == {"run", "upload", "download"}
        assert raw.run.model_copy(update={"name": ""}) == default.run.model_copy(update={"name": ""})
        assert (default.upload, default.download) == (Upload(), Download())
        assert raw.strategy.lr == default.strategy.lr == 1.0, "the same for all codecs"


@pytest.mark.parametrize("task", sorted({cell.keys[0] for cell in CELLS.values()}))
def test_every_task_of_the_zoo_fits_its_model(task: str, data_dir: Path) -> None:
    loaded = load_task(task.partition("=")[2].strip('"'))
    data, model = loaded.data(data_dir), torch_model.build(loaded, 0)
    found = torch_model.evaluate(model, loaded, data.test.take(slice(0, 64)))  # type: ignore[arg-type]
    assert {"accuracy", "r2"} & set(found)
    assert 9 <= torch_model.spec_of(model).size <= 150_000
    assert len(data.train) <= 20_000


@pytest.mark.parametrize("draw", [tables_of.clusters, tables_of.houses, tokens.chain, tokens.topics, pictures.colours])
def test_what_is_drawn_is_the_same_each_time(draw: Callable[[], Data]) -> None:
    one, other = draw(), draw()
    assert (one.train.x == other.train.x).all()
    assert (one.test.y == other.test.y).all()


def test_arms_are_read_from_words() -> None:
    found = parse(["default", "c1:upload.codec=ef+ecsq:2,model=static;download.codec=int8", "c2:strategy.lr=1.2"])
    assert list(found) == [RAW, DEFAULT, "c1", "c2"]
    assert found["c1"] == ("upload.codec=ef+ecsq:2,model=static", "download.codec=int8")
    assert list(parse([])) == [RAW, DEFAULT]
    with pytest.raises(PlanError, match="Unknown arm 'defualt'"):
        parse(["defualt"])
    with pytest.raises(PlanError, match="new arm"):
        parse(["raw:upload.codec=int8"])


def test_a_candidate_may_override_the_servers_rate(tmp_path: Path) -> None:
    arms = parse(["c1:upload.codec=ecsq:4 strategy.lr=1.2"])
    planned = runs.planned(["separable, sgd, 5 iid"], arms, [0], tmp_path, ["run.rounds=3"])
    assert [plan.strategy.lr for plan in planned.values()] == [1.0, 1.2]
    assert [plan.run.rounds for plan in planned.values()] == [3, 3]
    with pytest.raises(PlanError, match="Unknown cell"):
        runs.planned(["separable"], arms, [0], tmp_path)


def test_every_strategy_has_a_plan_that_can_run(tmp_path: Path) -> None:
    planned = strategies.planned(parse([]), [0], tmp_path)
    by_cell: dict[str, set[str]] = {}
    for run, plan in planned.items():
        spec = torch_model.spec_of(torch_model.build(load_task(plan.task.name), 0))
        strategy = build(plan)
        assert strategy.id == run.cell
        assert strategy.layout(spec) or strategy.id == "local"
        by_cell.setdefault(run.half, set()).add(run.cell)
        other = planned[run._replace(arm=RAW)]
        assert differing(plan, other) <= {"run", "upload", "download"}
        assert plan.strategy.lr == other.strategy.lr > 0, "not the codec's"
        updates = plan.run.rounds * (plan.cohort.buffer or plan.cohort_size(plan.clients.count))
        assert updates == 12 * 20, "as many for all"
    assert by_cell["fashion with BatchNorm"] == set(STRATEGIES)
    assert len({plan.directory for plan in planned.values()}) == len(planned)


def result(values: list[float | None], sent: int = 1000, metric: str = "accuracy") -> Result:
    """Rounds from 0 on with these values; each but the first of ``sent`` bytes up and down together."""
    rounds = [
        RoundRecord(i, metrics={} if v is None else {metric: v}, bytes_up=sent if i else 0)
        for i, v in enumerate(values)
    ]
    total = sent * (len(values) - 1)
    summary = Summary(
        "x", "y", "fedavg", len(values) - 1, 1.0, total, total, 0, 0, "raw", "raw", 10, 1, "inline", 0, ""
    )
    return Result(Path("x"), summary, rounds)


RAW_RUN = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]


def test_points_lost_at_the_end_and_in_mid_run_by_hand() -> None:
    raw = result(RAW_RUN)
    ours = result([0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.86, 0.87, 0.88], sent=50)
    line = compare("tuned", "x", "c1", "accuracy", [raw], [ours])
    assert line.raw == pytest.approx(0.9)
    assert line.values == pytest.approx([0.87])
    assert line.loss == pytest.approx(3.0)
    assert line.loss_mid == pytest.approx(20.0)  # rounds 2, 3 and 4
    assert line.gain_lost == pytest.approx(0.03 / 0.8)
    assert line.ratio == pytest.approx(20)
    assert (line.reached, line.rounds, line.ratio_to_target) == (0, None, None)
    assert line.behind
    assert not line.nothing
    slower = result([0.1, *[0.3] * 5, 0.9, 0.9, 0.9, 0.9], sent=50)
    line = compare("tuned", "x", "c1", "accuracy", [raw], [slower])
    assert (line.loss, line.reached) == (pytest.approx(0.0), 1)
    assert line.rounds == pytest.approx(8 / 7)  # raw's last three are at 0.89 first in round 7
    assert line.ratio_to_target == pytest.approx(20 * 7 / 8)


def test_what_diverged_or_stopped_early_has_learnt_nothing() -> None:
    raw = result(RAW_RUN)
    for lost in (result([0.1, 0.5, None, None, None]), result([0.1] * 10), result([0.1, *[0.02] * 9])):
        line = compare("tuned", "x", "c1", "accuracy", [raw], [lost])
        assert line.loss == pytest.approx(80.0)
        assert line.nothing
    wild = result([-9.0, *[-1e6] * 9], metric="r2")
    good = result([-9.0, *[0.6] * 9], metric="r2")
    line = compare("tuned", "x", "c1", "r2", [good], [wild])
    assert line.loss == pytest.approx(60.0), "beside the mean of the targets, not worse"
    assert line.more_error == pytest.approx(1.5)  # an error of 1 in place of 0.4
    assert by_round(wild, "r2", 9) == [0.0] * 10


def test_noise_is_that_of_raw_over_seeds() -> None:
    theirs = [result([0.1, *[v] * 9]) for v in (0.88, 0.9, 0.92)]
    ours = [result([0.1, *[v] * 9]) for v in (0.87, 0.88, 0.88)]
    line = compare("tuned", "x", "c1", "accuracy", theirs, ours)
    assert line.noise == pytest.approx(2.0 * (2 / 3) ** 0.5)
    assert line.loss == pytest.approx(100 * (0.9 - 2.63 / 3))
    assert not line.behind, "2.3 points, of which 1.6 may be chance"
    assert measures.total([line]).behind == 0


def test_totals_are_by_half_and_arm() -> None:
    raw, good = result(RAW_RUN), result(RAW_RUN, sent=100)
    bad = result([0.1] * 10, sent=10)
    lines = [
        compare("tuned", "a", "c1", "accuracy", [raw], [good]),
        compare("tuned", "b", "c1", "accuracy", [raw], [bad]),
        compare("unseen", "c", "c1", "accuracy", [raw], [good]),
    ]
    tuned, unseen = measures.totals(lines)
    assert (tuned.half, tuned.cells, tuned.nothing, tuned.behind, tuned.missed) == ("tuned", 2, 1, 1, 1)
    assert (tuned.loss, tuned.worst, tuned.worst_cell) == (pytest.approx(40), pytest.approx(80), "b")
    assert tuned.geometric_ratio == pytest.approx((10 * 100) ** 0.5)
    assert tuned.ratio == pytest.approx(55)
    assert (tuned.rounds, unseen.rounds) == (1.0, 1.0)
    assert (unseen.cells, unseen.loss, unseen.nothing) == (1, 0.0, 0)
    alone = compare("tuned", "d", "c1", "accuracy", [result(RAW_RUN, sent=0)], [result(RAW_RUN, sent=0)])
    assert measures.total([alone]).geometric_ratio == 1.0, "strategies that send nothing, such as local"
    assert tables.table("tuned", lines).row_count == 2
    assert tables.summary([tuned, unseen]).row_count == 2


def test_raw_learns_in_the_small_cells(tmp_path: Path) -> None:
    lines = runs.lines(runs.planned(SMALL, {RAW: parse([])[RAW]}, [0], tmp_path, ["run.rounds=12"]))
    assert [line.cell for line in lines] == SMALL
    assert {line.half for line in lines} == set(cells.HALVES)
    for line in lines:
        assert (line.loss, line.rounds, line.ratio) == (0.0, 1.0, 1.0), "raw beside itself"
        assert not line.nothing
        assert line.raw > 0.3
    assert not list(tmp_path.glob("*/clients"))


def test_the_zoo_on_the_command_line(tmp_path: Path) -> None:
    words = ["bench", "zoo", "--cell", "separable, sgd, 5 iid", "--seed", "0", "--set", "run.rounds=2", "--out"]
    arms = ["--arm", "c1:upload.codec=int8;download.codec=int8"]

    def run(*more: str) -> dict[str, int]:
        done = CliRunner().invoke(app, [*words, str(tmp_path), *arms, *more], catch_exceptions=False)
        assert done.exit_code == 0
        assert "c1" in done.output
        return {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}

    first = run()
    assert set(first) == {"separable-sgd-5-iid-raw-0", "separable-sgd-5-iid-c1-0"}
    raw, c1 = json.loads((tmp_path / "zoo.json").read_text())
    assert (raw["arm"], c1["arm"], c1["half"]) == (RAW, "c1", "tuned")
    assert c1["keys"] == ["upload.codec=int8", "download.codec=int8"]
    assert (tmp_path / "zoo.svg").stat().st_size
    again = run("--fresh-arm", "c1")
    assert again["separable-sgd-5-iid-raw-0"] == first["separable-sgd-5-iid-raw-0"], "kept, not run again"
    assert again["separable-sgd-5-iid-c1-0"] > first["separable-sgd-5-iid-c1-0"]
    both = run("--fresh", "--workers", "2")
    assert all(both[name] > again[name] for name in both)
    assert json.loads((tmp_path / "zoo.json").read_text()) == [raw, c1], "the same in other processes"
