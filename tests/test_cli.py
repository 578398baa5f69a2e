"""The verbs that need no run. Those that do are in test_end_to_end."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedpress.cli import app, main
from fedpress.commands.words import read_plan
from fedpress.errors import DataError, PlanError, RunFailed
from fedpress.plan import load

REPO = Path(__file__).resolve().parent.parent


def output(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_words_make_a_plan() -> None:
    demo = str(REPO / "simulations" / "demo.toml")
    assert read_plan([demo, "run.rounds=3"]).run.rounds == 3
    assert read_plan(["digits"]).run.name == "digits"
    assert read_plan(["examples/wine.py"]).run.name == "wine"
    assert read_plan(["digits", "run.name=x"]).run.name == "x"
    assert read_plan(["train.lr=0.5"]).train.lr == 0.5
    with pytest.raises(PlanError, match="nonsense"):
        read_plan(["digits", "nonsense"])


def test_plan_show_prints_what_load_reads(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(output("plan", "show", "digits", "train.lr=0.5"))
    assert load(path) == read_plan(["digits", "train.lr=0.5"])


def test_help_explain_codecs_and_data_teach() -> None:
    assert "simulate" in output("--help")
    assert "Example" in output("simulate", "--help")
    assert "upload.codec" in output("plan", "explain", "upload")
    assert "topk" in output("codecs")
    assert "femnist" in output("data")
    assert "Fine" in output("plan", "check", "digits")
    with pytest.raises(PlanError, match="Did you mean 'upload'"):
        output("plan", "explain", "uplaod")
    with pytest.raises(DataError, match="Expected"):
        output("report", str(REPO / "nowhere"))


def simulated(tmp_path: Path, *words: str) -> Result:
    """``fedpress simulate`` on digits, small."""
    keys = ("engine.name=inline", f"run.out={tmp_path}", "clients.count=2", "run.rounds=2", "train.max_steps=2")
    return CliRunner().invoke(app, ["simulate", "digits", *keys, *words])


def test_a_run_that_did_its_job_ends_with_0_and_its_warnings_in_the_table(tmp_path: Path) -> None:
    done = simulated(tmp_path, "upload.codec=topk:0.01", "watch.floor=0.9")
    assert done.exit_code == 0
    assert "fidelity" in done.output
    assert "warning" in done.output
    assert "failed" not in done.output


def test_a_run_that_did_not_ends_with_1_after_its_report(tmp_path: Path) -> None:
    done = simulated(tmp_path, "train.lr=1e-30", "--quiet")
    assert (done.exit_code, type(done.exception)) == (1, RunFailed)
    assert "train.lr" in str(done.exception)
    assert "failed" in done.output
    for name in ("summary.json", "report.html"):
        assert (tmp_path / "digits" / name).is_file()
    again = CliRunner().invoke(app, ["report", str(tmp_path / "digits")])
    assert (again.exit_code, "failed" in again.output) == (0, True)


def test_the_reason_is_a_line_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("sys.argv", ["fedpress", "simulate", "digits", "engine.name=inline", f"run.out={tmp_path}",
                                     "clients.count=2", "run.rounds=1", "train.lr=1e-30", "-q"])  # fmt: skip
    monkeypatch.setattr("fedpress.cli.complaints.print", lambda text, **_: said.append(text))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "The model never moved" in said[-1]
