"""The verbs that need no run. Those that do are in test_end_to_end."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpress.cli import app
from fedpress.commands.words import read_plan
from fedpress.errors import DataError, PlanError
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
