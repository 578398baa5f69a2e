"""A codec for each client: slower links get coarser steps, rare clients no feedback; one mean takes in all of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fedpress.compression.registry import parse
from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.server.choice import Facts, choose, scheduled
from fedpress.simulations.engines import simulate

REGULAR = Facts(1_000_000, link_up=1e6, train_seconds=10.0, invited=9, rounds=10)


def rate(facts: Facts) -> float:
    return float(choose(facts).codec.rpartition("ecsq:")[2].partition(",")[0])


def test_a_slower_link_never_gets_a_finer_step() -> None:
    rates = [rate(dataclasses.replace(REGULAR, link_up=10.0**power)) for power in range(7, 1, -1)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    hurried = [rate(dataclasses.replace(REGULAR, train_seconds=10.0**-power, link_up=1e5)) for power in range(4)]
    assert hurried == sorted(hurried)


def test_who_comes_rarely_sends_without_feedback_and_hears_why() -> None:
    rare = choose(dataclasses.replace(REGULAR, invited=2))
    assert not rare.codec.startswith("ef:")
    assert "2 of 10 rounds" in rare.reason
    assert choose(REGULAR).codec.startswith("ef:")
    assert choose(dataclasses.replace(REGULAR, invited=0, rounds=2)).codec.startswith("ef:"), "too early to say"


def test_a_slow_device_codes_with_the_cheaper_model() -> None:
    slow = choose(dataclasses.replace(REGULAR, encode_seconds=5.0))
    assert "model=adaptive" in slow.codec
    assert "5.00 s" in slow.reason


def test_an_upload_may_take_a_tenth_of_training_or_of_the_deadline() -> None:
    """A million parameters at 0.3 bits (rate 3) are 37.5 kB, at 0.12 (rate 4) 15 kB; a tenth of 10 s is 1 s."""
    for train, deadline in ((10.0, 0.0), (0.0, 10.0)):
        facts = dataclasses.replace(REGULAR, train_seconds=train, deadline_s=deadline)
        for link, expected in ((1e9, 3.0), (38e3, 3.0), (37e3, 4.0), (15e3, 4.0), (14e3, 6.0), (1.0, 6.0)):
            assert rate(dataclasses.replace(facts, link_up=link)) == expected, link
    assert rate(dataclasses.replace(REGULAR, link_up=1.0, train_seconds=0.0)) == 3.0, "nothing to compare with"


@pytest.mark.parametrize(("encode", "train", "cheaper"), [(1.1, 10, True), (0.9, 10, False), (0.2, 1, False)])
def test_coding_is_slow_beyond_a_quarter_of_a_second_and_a_tenth_of_training(
    encode: float, train: float, cheaper: bool
) -> None:
    facts = dataclasses.replace(REGULAR, encode_seconds=encode, train_seconds=train)
    assert ("model=adaptive" in choose(facts).codec) == cheaper


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


def test_a_run_with_a_codec_per_client(tmp_path: Path) -> None:
    """Half of the clients come rarely; the record names each one's codec and the reason."""
    settings = ("upload.codec=auto", "upload.rate_end=3", "clients.count=6", "cohort.fraction=0.34", "run.rounds=12")
    how = ("engine.name=inline", "train.epochs=8", "download.codec=ecsq:3,ladder=true")
    result = simulate(load(None, [f"run.out={tmp_path}", *settings, *how]))
    lines = (result.run_dir / "rounds.jsonl").read_text().splitlines()
    trained = [r for r in map(json.loads, lines) if r["round"] and not r.get("evaluation")]
    used = {client["codec"]: client["reason"] for r in trained for client in r["clients"].values()}
    assert {text.startswith("ef:") for text in used} == {True, False}
    assert all(used.values())
    assert (result.summary.accuracy or 0) > 0.5
