"""A codec for each round: near exact where a model is tiny, dithered where a dead zone would keep back what counts, and
always within the floor; the same again after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.compression.registry import ids_of, parse
from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.sections import Download, Upload
from fedpress.server.choice import Facts, download, possible, scheduled, upload
from fedpress.simulations.engines import simulate

USUAL = Facts(parameters=100_000, cohort=10, often=True)
facts = st.builds(
    Facts,
    st.integers(1, 10**7),
    st.integers(1, 1000),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(known=facts, floor=st.floats(0, 0.99999))
def test_whatever_is_chosen_keeps_the_floor_and_is_announced(known: Facts, floor: float) -> None:
    for choice, settings in (
        (upload(known, floor), Upload(codec="auto")),
        (download(known, floor), Download(codec="auto")),
    ):
        codec: Any = parse(choice.codec)
        inner = getattr(codec, "inner", codec)
        assert inner.keeps >= max(floor, 0.3) - 1e-3
        assert ids_of(codec) <= frozenset().union(*(ids_of(parse(text)) for text in possible(settings)))
        assert choice.reason


def test_strategies_that_correct_devices_by_what_was_decoded_have_no_feedback() -> None:
    """What was lost would come back twice, and grow: SCAFFOLD ended with a loss of 1e25."""
    for name in ("scaffold", "feddyn"):
        plan = load(None, ["task.name=digits", f"strategy.name={name}"])
        assert parse(upload(Facts.of(plan, 100_000)).codec).unbiased
    assert not Facts.of(load(None, ["task.name=digits"]), 100_000).corrects


def test_every_number_is_sent_in_the_mean() -> None:
    for often in (True, False):
        codec = parse(upload(replace(USUAL, often=often)).codec)
        assert codec.inner.unbiased  # type: ignore[union-attr]
    assert parse(download(USUAL).codec).unbiased
    assert "ladder" in download(replace(USUAL, often=False)).codec, "who missed versions gets one delta"


def test_a_tiny_model_travels_nearly_as_it_is() -> None:
    tiny = replace(USUAL, parameters=28)
    assert parse(upload(tiny).codec).inner.keeps > 0.99  # type: ignore[union-attr]
    assert parse(download(tiny).codec).keeps > 0.99


@given(cohorts=st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_the_fewer_clients_share_a_mean_the_finer_each_one_is(cohorts: list[int]) -> None:
    kept = [parse(upload(replace(USUAL, cohort=n)).codec).inner.keeps for n in sorted(cohorts)]  # type: ignore[union-attr]
    assert kept == sorted(kept, reverse=True)


def test_rates_move_along_their_schedule() -> None:
    texts = [scheduled("ef+predict:0.5+ecsq:4.0,model=static", 2.0, share) for share in (0.0, 0.5, 1.0)]
    assert [parse(text).text for text in texts] == [
        f"ef+predict:0.5+ecsq:{rate},model=static" for rate in ("4.0", "3.0", "2.0")
    ]
    assert scheduled("ef+topk:0.1+int8", 2.0, 0.5) == "ef+topk:0.1+int8"
    with pytest.raises(PlanError, match=r"rate_end = 0 with the codec 'int8'"):
        load(None, ["upload.codec=int8", "upload.rate_end=2"])


def test_a_runs_rate_is_the_plans_in_the_first_round_and_rate_end_in_the_last(tmp_path: Path) -> None:
    words = ["engine.name=inline", "clients.count=2", "run.rounds=3", "train.max_steps=1", f"run.out={tmp_path}"]
    result = simulate(load(None, [*words, "upload.codec=ecsq:4", "upload.rate_end=2"]))
    trained = [json.loads(line) for line in (result.run_dir / "rounds.jsonl").read_text().splitlines()][1:4]
    used = [{client["codec"] for client in record["clients"].values()} for record in trained]
    assert used == [{"ecsq:4"}, {"ecsq:3"}, {"ecsq:2"}]


def test_a_run_on_auto_gives_its_reasons_and_repeats(tmp_path: Path) -> None:
    settings = ("upload.codec=auto", "download.codec=auto", "clients.count=4", "run.rounds=4")
    found = []
    for turn in ("one", "two"):
        how = ("engine.name=inline", "train.max_steps=5", f"run.name={turn}", f"run.out={tmp_path}")
        result = simulate(load(None, [*settings, *how]))
        lines = (result.run_dir / "rounds.jsonl").read_text().splitlines()
        trained = [r for r in map(json.loads, lines) if r["round"] and not r.get("evaluation")]
        clients = [client for r in trained for client in r["clients"].values()]
        assert all(client["reason"] for client in clients)
        found.append(([client["codec"] for client in clients], result.summary.model))
    assert found[0] == found[1]
