"""The laws of every selection rule: distinct, as many as asked for, the same for a seed; and what each one promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.plan import load
from fedpress.privacy.noise import Noise
from fedpress.server.selection import SELECTIONS
from fedpress.server.selection.candidate import Candidate, Condition, Select
from fedpress.server.selection.deadline_aware import deadline_aware
from fedpress.server.selection.round_robin import round_robin
from fedpress.server.selection.uniform import uniform
from fedpress.server.selection.weighted import weighted

DEADLINE = 10.0
MEASURED = st.floats(0, 100)
CANDIDATES = st.builds(
    Candidate,
    st.text("abcdef0123", min_size=1, max_size=6),
    examples=st.integers(0, 1 << 32),
    loss=st.none() | st.floats(allow_nan=True),
    train_seconds=MEASURED,
    bytes_up=st.integers(0, 10**7),
    bytes_down=st.integers(0, 10**7),
    link_up=st.just(0.0) | st.floats(1, 1e9),
    link_down=st.just(0.0) | st.floats(1, 1e9),
    participations=st.integers(0, 100),
    last_round=st.integers(0, 100),
    late_after=st.just(0.0) | MEASURED,
)
POOLS = st.lists(CANDIDATES, max_size=30, unique_by=lambda c: c.name).map(lambda v: sorted(v, key=lambda c: c.name))


#: The rules that draw from the run's seed; tests/server/test_sampled.py has those that nobody can foresee.
OPEN = [rule for rule in SELECTIONS if rule != "poisson"]


def made(rule: str, seed: int = 0) -> Select:
    return SELECTIONS[rule](load(None, [f"run.seed={seed}", f"cohort.deadline_s={DEADLINE}"]), Noise.secret())


def crowd(n: int) -> list[Candidate]:
    return [Candidate(f"c{i:03d}") for i in range(n)]


def play(select: Select, pool: Sequence[Candidate], count: int, rounds: int) -> list[list[str]]:
    """Who is invited in each round, when nothing else becomes known of anybody."""
    known, history = {c.name: c for c in pool}, []
    for round_ in range(1, rounds + 1):
        chosen = select(list(known.values()), count, round_, 0)
        for name in chosen:
            c = known[name]
            known[name] = replace(c, participations=c.participations + 1, last_round=round_)
        history.append(chosen)
    return history


@pytest.mark.parametrize("rule", OPEN)
@given(POOLS, st.data())
def test_every_rule_draws_distinct_names_as_many_as_asked_for_and_again_the_same(
    rule: str, pool: list[Candidate], data: st.DataObject
) -> None:
    count, round_ = data.draw(st.integers(0, len(pool))), data.draw(st.integers(1, 200))
    before, seed = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
    chosen = made(rule, seed)(pool, count, round_, before)
    assert len(chosen) == count
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert set(chosen) <= {c.name for c in pool}
    assert chosen == made(rule, seed)(pool, count, round_, before)


@pytest.mark.parametrize("rule", OPEN)
def test_another_seed_round_or_replacement_is_another_draw(rule: str) -> None:
    pool = crowd(100)
    draws = [made(rule, seed)(pool, 10, round_, before) for seed in (0, 1) for round_ in (1, 2) for before in (0, 3)]
    assert len(set(map(tuple, draws))) == len(draws)


def test_a_plan_gets_the_rule_that_it_names_and_its_own_deadline() -> None:
    pool = [Candidate(f"c{i:02d}", examples=1 + i * i, train_seconds=0.5 * i, participations=i % 3) for i in range(30)]
    named = {
        "uniform": uniform(3),
        "weighted": weighted(3),
        "round-robin": round_robin(3),
        "deadline-aware": deadline_aware(3, DEADLINE),
    }
    assert set(named) == set(OPEN)
    drawn = {rule: [made(rule, 3)(pool, 12, r, 0) for r in range(1, 20)] for rule in named}
    assert drawn == {rule: [select(pool, 12, r, 0) for r in range(1, 20)] for rule, select in named.items()}
    assert len({str(chosen) for chosen in drawn.values()}) == len(named), "no two of them alike"


@pytest.mark.parametrize("rule", ["uniform", "weighted", "deadline-aware"])
def test_where_nothing_is_known_all_are_equally_likely(rule: str) -> None:
    drawn = Counter(name for r in range(1, 2001) for name in made(rule)(crowd(20), 5, r, 0))
    counts = np.array([drawn[c.name] for c in crowd(20)])
    assert np.all(np.abs(counts - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75))


def test_weighted_draws_one_in_proportion_to_examples() -> None:
    sizes = [1, 2, 3, 4, 0]  # nobody knows of the last one: it counts as the mean, 2.5
    pool = [Candidate(f"c{i}", examples=100 * size) for i, size in enumerate(sizes)]
    rounds = 20_000
    drawn = Counter(name for r in range(rounds) for name in weighted(0)(pool, 1, r, 0))
    shares = np.array([1, 2, 3, 4, 2.5]) / 12.5
    frequencies = np.array([drawn[c.name] for c in pool]) / rounds
    assert np.all(np.abs(frequencies - shares) < 5 * np.sqrt(shares * (1 - shares) / rounds))


def test_weighted_draws_several_as_if_one_by_one() -> None:
    """Of weights 1, 2, 3, the pairs by hand: P(a, b) = 1/6 * 2/5 + 2/6 * 1/4, and so on."""
    pool = [Candidate(name, examples=size) for name, size in (("a", 1), ("b", 2), ("c", 3))]
    rounds = 20_000
    drawn = Counter("".join(weighted(7)(pool, 2, r, 0)) for r in range(rounds))
    pairs = {
        "ab": 1 / 6 * 2 / 5 + 2 / 6 * 1 / 4,
        "ac": 1 / 6 * 3 / 5 + 3 / 6 * 1 / 3,
        "bc": 2 / 6 * 3 / 4 + 3 / 6 * 2 / 3,
    }
    assert sum(pairs.values()) == pytest.approx(1)
    for pair, share in pairs.items():
        assert drawn[pair] / rounds == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / rounds))


@given(st.integers(1, 30), st.data())
def test_round_robin_keeps_turns_within_one(clients: int, data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, clients)), data.draw(st.integers(0, 9))
    turns = Counter({c.name: 0 for c in crowd(clients)})
    for chosen in play(round_robin(seed), crowd(clients), count, 25):
        turns.update(chosen)
        assert max(turns.values()) - min(turns.values()) <= 1


@given(POOLS, st.data())
def test_deadline_aware_takes_nobody_known_to_be_too_slow_while_others_are_there(
    pool: list[Candidate], data: st.DataObject
) -> None:
    pool = [replace(c, last_round=80 + c.last_round // 5) for c in pool]  # in round 100, all of it is still believed
    count = data.draw(st.integers(0, len(pool)))
    slow = {c.name: c.seconds for c in pool if c.seconds > DEADLINE}
    chosen = deadline_aware(0, DEADLINE)(pool, count, 100, 0)
    assert len(slow.keys() & set(chosen)) <= max(0, count - (len(pool) - len(slow)))
    taken, left = [slow[n] for n in slow if n in chosen], [slow[n] for n in slow if n not in chosen]
    assert not taken or not left or max(taken) <= min(left), "of the slow, those expected soonest"


def test_what_makes_a_client_too_slow() -> None:
    quick = [replace(c, train_seconds=1.0, last_round=9) for c in crowd(5)]
    cases: dict[str, Callable[[Candidate], Candidate]] = {
        "training": lambda c: replace(c, train_seconds=11.0),
        "upload": lambda c: replace(c, bytes_up=10**6, link_up=1e5),
        "download": lambda c: replace(c, bytes_down=10**6, link_down=1e5),
        "all of it together": lambda c: replace(
            c, train_seconds=4.0, bytes_up=400, link_up=100.0, bytes_down=400, link_down=100.0
        ),
        "a round that closed without it": lambda c: replace(c, late_after=10.0),
    }
    for why, slower in cases.items():
        pool = [*quick[:-1], slower(quick[-1])]
        assert deadline_aware(0, DEADLINE)(pool, 4, 10, 0) == [c.name for c in quick[:-1]], why
    unknown = [*[replace(c, train_seconds=11.0, last_round=9) for c in quick[:-1]], Candidate("new")]
    assert deadline_aware(0, DEADLINE)(unknown, 1, 9, 0) == ["new"]


def test_who_takes_anothers_place_is_in_time_whoever_waits_to_be_tried_again() -> None:
    quick = [Candidate("a", train_seconds=1.0, last_round=99), Candidate("b", train_seconds=1.0, last_round=99)]
    pool = [*quick, Candidate("slow", train_seconds=1e6, last_round=1)]
    assert "slow" in deadline_aware(0, DEADLINE)(pool, 1, 100, 0)  # round 100 has a place for trying
    assert "slow" not in deadline_aware(0, DEADLINE)(pool, 1, 100, 1)


@given(st.integers(1, 5), st.integers(0, 3), st.integers(2, 6))
def test_deadline_aware_starves_nobody(count: int, seed: int, slow: int) -> None:
    """However slow: tried again within 20 rounds, and as many more as those before it in the queue need."""
    pool = [replace(c, train_seconds=1.0) for c in crowd(6)]
    pool += [Candidate(f"slow{i}", train_seconds=1e6) for i in range(slow)]
    history = play(deadline_aware(seed, DEADLINE), pool, count, 400)
    longest = 20 + 10 * (slow // count + 2)
    for c in pool:
        rounds = [0, *(r for r, chosen in enumerate(history, 1) if c.name in chosen), len(history)]
        wait = max(b - a for a, b in pairwise(rounds))
        assert wait <= (longest if c.name.startswith("slow") else 100), c.name
    places = Counter(name for chosen in history for name in chosen)
    assert sum(places[c.name] for c in pool if c.train_seconds > 1) <= len(history) * count / 10


def test_conditions_that_are_not_known_meet_every_requirement() -> None:
    every = ("charging", "unmetered", "idle")
    assert Candidate("a").meets(every)
    assert Candidate("a", condition=Condition(True, True, False)).meets(every)
    for condition, spoken_against in (
        (Condition(charging=False), "charging"),
        (Condition(unmetered=False), "unmetered"),
        (Condition(busy=True), "idle"),
    ):
        c = Candidate("a", condition=condition)
        assert c.meets(())
        assert [need for need in every if not c.meets((need,))] == [spoken_against]
