"""How fast each simulated client is: drawn from the seed, or as a file says; a file that does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.sections import Fleet
from fedpress.simulations.profiles import profiles

NAMES = [f"client-{i:03d}" for i in range(9)]


def test_without_spread_every_client_is_the_usual_one() -> None:
    fleet = Fleet()
    for profile in profiles(fleet, NAMES, 0).values():
        assert vars(profile) == {key: getattr(fleet, key) for key in vars(profile)}


@given(seed=st.integers(0, 2**63 - 1), share=st.floats(0, 1), factor=st.floats(2, 100))
def test_exactly_the_share_is_slow_at_work_and_not_on_the_link(seed: int, share: float, factor: float) -> None:
    fleet = Fleet(slow_share=share, slow_factor=factor)
    found = list(profiles(fleet, NAMES, seed).values())
    slow = [p for p in found if p.step_s == fleet.step_s * factor and p.encode_rate == fleet.encode_rate / factor]
    usual = [p for p in found if p.step_s == fleet.step_s and p.encode_rate == fleet.encode_rate]
    assert (len(slow), len(usual)) == (round(share * 9), 9 - round(share * 9))
    assert {(p.up_rate, p.down_rate) for p in found} == {(fleet.up_rate, fleet.down_rate)}


def test_a_client_is_drawn_by_its_name_and_the_seed_alone() -> None:
    fleet = Fleet(step_spread=0.5, link_spread=0.7)
    some, all_ = profiles(fleet, NAMES[3:5], 1), profiles(fleet, NAMES, 1)
    assert all(all_[name] == some[name] for name in some)
    assert profiles(fleet, NAMES, 2) != all_


def test_the_spread_is_log_normal_about_the_usual_client() -> None:
    from math import log
    from statistics import mean, stdev

    names = [f"c{i}" for i in range(2000)]
    found = profiles(Fleet(step_spread=0.5, link_spread=0.25), names, 0).values()
    steps, links = [log(p.step_s / 0.05) for p in found], [log(1e6 / p.up_rate) for p in found]
    assert (mean(steps), stdev(steps)) == pytest.approx((0, 0.5), abs=0.04)
    assert (mean(links), stdev(links)) == pytest.approx((0, 0.25), abs=0.02)


def test_a_file_gives_each_client_its_own_values_and_the_rest_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_text("client, up_rate, dropout\nclient-001, 5e3, 0.25\nclient-000, 7000, 0\n")
    fleet = Fleet(profiles=path, step_spread=0.5, link_spread=0.5)
    drawn = profiles(fleet.model_copy(update={"profiles": None}), NAMES[:2], 0)
    found = profiles(fleet, NAMES[:2], 0)
    assert [(found[n].up_rate, found[n].dropout) for n in NAMES[:2]] == [(7000.0, 0.0), (5000.0, 0.25)]
    assert [(p.step_s, p.down_rate) for p in found.values()] == [(p.step_s, p.down_rate) for p in drawn.values()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,step_s\nclient-000,1\n", "a header with 'client'"),
        ("client,step_s,step_s\nclient-000,1,1\n", "each column once"),
        ("client,step\nclient-000,1\n", "Unknown column 'step'.*Did you mean 'step_s'"),
        ("client,step_s\nclient-000,fast\nclient-001,1\n", r"fleet.step_s could have, got 'fast' in line 2"),
        ("client,dropout\nclient-000,1.5\nclient-001,0\n", r"fleet.dropout could have, got '1.5' in line 2"),
        ("client,step_s\nclient-000\nclient-001,1\n", "as many values .* line 2"),
        ("client,step_s\nclient-000,1,2\nclient-001,1\n", "as many values .* line 2"),
        ("client,step_s\nclient-000,1\n", "found none for 'client-001'"),
        ("client,step_s\nclient-000,1\nclient-000,1\n", "'client-000' is there twice"),
        ("client,step_s\nclient-000,1\nclient-00l,1\n", "'client-00l' is no client of this run. Did you mean"),
        ("", "a header with 'client'"),
    ],
    ids=str,
)
def test_a_file_that_does_not_describe_these_clients_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "fleet.csv"
    path.write_text(text)
    with pytest.raises(PlanError, match=expected) as refusal:
        profiles(Fleet(profiles=path), NAMES[:2], 0)
    assert "fleet.csv" in str(refusal.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"Cannot read .*fleet.profiles"):
        profiles(Fleet(profiles=tmp_path / "none.csv"), NAMES, 0)
    path = tmp_path / "fleet.csv"
    path.write_bytes(b"client,step_s\n\xff\xfe,1\n")
    with pytest.raises(PlanError, match="not a CSV file"):
        profiles(Fleet(profiles=path), NAMES, 0)


def test_real_processes_cannot_run_in_virtual_time() -> None:
    with pytest.raises(PlanError, match=r"engine.name = 'inline' with engine.clock = 'virtual', got 'processes'"):
        load(None, ["engine.clock=virtual"])
    with pytest.raises(PlanError, match=r"fleet.step_s"):
        load(None, ["fleet.step_s=0"])
