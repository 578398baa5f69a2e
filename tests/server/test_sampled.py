"""Cohorts that privacy is amplified by: drawn once, in secret, as the statement says, and nobody replaced."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.compression.stream import Stream
from fedpress.plan import load
from fedpress.privacy.noise import Noise
from fedpress.server.cohorts import Cohorts
from fedpress.server.leases import Fate, Issue, Note, Phase, Rules, Step
from fedpress.server.sampled import Sampled
from fedpress.server.selection import SELECTIONS
from fedpress.server.selection.candidate import Candidate, Select
from fedpress.server.selection.sampled import fixed, poisson


def crowd(n: int) -> list[Candidate]:
    return [Candidate(f"c{i:03d}") for i in range(n)]


def sampled(select: Select, clients: int, pacing: type[Cohorts] = Sampled, **rules: object) -> Cohorts:
    ids = itertools.count()
    defaults = {"rounds": 3, "cohort": lambda n: n // 2, "select": select, "min_clients": clients, "min_updates": 0}
    made = pacing(
        Rules(**{**defaults, "deadline_s": 10.0, **rules}),  # type: ignore[arg-type]
        new_id=lambda: f"t{next(ids)}",
    )
    for i in range(clients):
        made.enrolled(f"id{i}", f"c{i:03d}", 0.0)
    return made


def test_poisson_draws_each_client_by_itself_with_the_same_chance() -> None:
    select, rounds, rate = poisson(0.3, 1, Noise.seeded(Stream(1))), 4000, 0.3
    drawn = np.array(
        [[c.name in names for c in crowd(8)] for names in (select(crowd(8), 2, r, 0) for r in range(rounds))]
    )
    spread = 5 * np.sqrt(rate * (1 - rate) / rounds)
    assert np.all(np.abs(drawn.mean(axis=0) - rate) < spread)
    assert abs(np.var(drawn.sum(axis=1)) - 8 * rate * (1 - rate)) < 0.15  # the variance of a binomial: independent


def test_poisson_gives_nobody_where_too_few_are_drawn() -> None:
    select = poisson(0.2, 3, Noise.seeded(Stream(2)))
    sizes = {len(select(crowd(10), 2, r, 0)) for r in range(300)}
    assert 0 in sizes
    assert not sizes & {1, 2}


def test_fixed_draws_all_cohorts_of_a_size_alike() -> None:
    select, rounds = fixed(Noise.seeded(Stream(3))), 6000
    drawn = [tuple(select(crowd(4), 2, r, 0)) for r in range(rounds)]
    counts = np.array([drawn.count(pair) for pair in itertools.combinations([c.name for c in crowd(4)], 2)])
    assert counts.sum() == rounds
    assert np.all(np.abs(counts - rounds / 6) < 5 * np.sqrt(rounds / 6 * 5 / 6))


def test_draws_from_the_operating_system_cannot_be_foreseen() -> None:
    assert fixed(Noise.secret())(crowd(100), 50, 1, 0) != fixed(Noise.secret())(crowd(100), 50, 1, 0)


def test_central_privacy_never_draws_by_the_seed_that_devices_are_told() -> None:
    """The draws of a plan's rule are those of the secret source, whatever its seed; and of the plan's least number."""
    words = ["privacy.mode=central", "strategy.weighting=uniform", "evaluate.clients_every=0", "clients.count=100"]
    words += ["cohort.fraction=0.1", "privacy.min_cohort=8"]
    for rule, said in (("uniform", fixed), ("poisson", lambda noise: poisson(0.1, 8, noise))):
        plan = load(None, [*words, f"cohort.selection={rule}"])
        ours, theirs = SELECTIONS[rule](plan, Noise.seeded(Stream(6))), said(Noise.seeded(Stream(6)))
        assert [ours(crowd(100), 10, r, 0) for r in range(20)] == [theirs(crowd(100), 10, r, 0) for r in range(20)]


@pytest.mark.parametrize("select", [fixed(Noise.seeded(Stream(4))), poisson(0.4, 1, Noise.seeded(Stream(5)))])
@given(
    st.lists(st.tuples(st.sampled_from(["count", "reject", "decline", "late", "tick"]), st.integers(0, 9)), max_size=40)
)
def test_whatever_happens_a_round_is_of_those_it_was_drawn_of(select: Select, events: list[tuple[str, int]]) -> None:
    c, now, drawn = sampled(select, 10), 0.0, dict[int, set[str]]()
    for kind, who in events:
        now += 1.0
        for lease in c.leases.values():
            drawn.setdefault(lease.round, {v.client for v in c.leases.values() if v.round == lease.round})
        mine = [v for v in c.leases.values() if v.client == f"id{who}" and v.fate is Fate.OPEN]
        if kind == "late":
            c.enrolled(f"id{10 + who}", f"d{who}", now)
        elif kind == "tick":
            now += 10.0
            c.tick(now)
        elif mine:
            {"count": c.counted, "reject": c.rejected, "decline": c.declined}[kind](mine[0].id, now)
        for lease in c.leases.values():
            assert lease.client in drawn.get(lease.round, {lease.client})
        counted = [v.client for v in c.leases.values() if v.fate is Fate.COUNTED]
        assert len(counted) == len(set(counted))
        if c.phase is Phase.STEPPING:
            c.stepped(now)


def test_a_cohort_without_anybody_is_a_round_all_the_same() -> None:
    c = sampled(lambda *_: [], 4)
    assert c.phase is Phase.STEPPING
    assert c.stepped(1.0) == [Step(2)]


def test_who_fails_is_asked_again_and_nobody_else() -> None:
    c = sampled(fixed(Noise.secret()), 10, min_updates=2, cohort=lambda n: 2)
    first, second = (lease for lease in list(c.leases.values()))
    assert c.rejected(first.id, 1.0) == []
    c.counted(second.id, 2.0)
    note, issue = c.tick(10.0)
    assert isinstance(note, Note)
    assert isinstance(issue, Issue)
    assert [lease.client for lease in issue.leases] == [first.client]


def test_who_was_drawn_stays_drawn_however_long_it_is_away() -> None:
    c = sampled(fixed(Noise.secret()), 10, min_updates=2, cohort=lambda n: 2, presence_s=5.0)
    first, second = list(c.leases.values())
    c.declined(first.id, 1.0)
    c.counted(second.id, 2.0)
    for now in (10.0, 20.0, 30.0):
        assert [type(action) for action in c.tick(now)] == [Note]
    c.met(first.client, 39.0)
    _, issue = c.tick(40.0)
    assert isinstance(issue, Issue)
    assert [lease.client for lease in issue.leases] == [first.client]
    assert c.counted(issue.leases[0].id, 41.0) == [Step(1)]


@pytest.mark.parametrize(("pacing", "invited"), [(Sampled, 0), (Cohorts, 5)])
def test_no_round_is_of_fewer_than_the_least_when_fewer_are_here(pacing: type[Cohorts], invited: int) -> None:
    c = sampled(fixed(Noise.secret()), 20, pacing, cohort=lambda n: int(0.3 * n), min_updates=5)
    for lease in list(c.leases.values()):
        closing = c.counted(lease.id, 1.0)
    assert closing == [Step(1)]
    c.stepped(1000.0)
    for i in range(10):
        c.met(f"id{i}", 1000.0)
    second = [lease for lease in c.leases.values() if lease.round == 2]
    assert len(second) == invited  # three of ten would be fewer than five


def test_a_poisson_round_waits_until_there_are_enough_to_draw_of() -> None:
    c = sampled(poisson(0.5, 1, Noise.secret()), 8, pool=9)
    assert c.phase is Phase.GATHERING
    c.enrolled("id8", "c008", 0.0)
    assert c.phase is not Phase.GATHERING


def test_a_cohort_is_a_share_of_those_that_may_come_rounded_down() -> None:
    c = sampled(fixed(Noise.secret()), 10, cohort=lambda n: int(0.5 * n))
    c = Sampled(c.rules, c.new_id, may=lambda client, *_: client != "id0")
    for i in range(10):
        c.enrolled(f"id{i}", f"c{i:03d}", 0.0)
    assert len(c.leases) == 4  # of nine
    assert "id0" not in {lease.client for lease in c.leases.values()}
