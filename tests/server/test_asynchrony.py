"""The laws of leases that outlive their rounds, held against thousands of event sequences without a network."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.errors import Refused
from fedpress.server.buffered import Buffered
from fedpress.server.cohorts import Cohorts
from fedpress.server.coordinator import Coordinator
from fedpress.server.leases import Fate, Finish, Grant, Hold, Issue, Lapse, Lease, Phase, Rules, Step
from fedpress.server.selection.uniform import uniform

CLIENTS = 5


class World:
    """A coordinator, its driver, and devices that remember one ticket each. Checks the laws after every event."""

    def __init__(self, pacing: type[Coordinator], **rules: Any) -> None:
        defaults = {"cohort": lambda n: n, "select": uniform(0), "min_clients": CLIENTS, "deadline_s": 10.0}
        self.rules = Rules(**{"rounds": 4, "presence_s": 20.0, **defaults, **rules})
        self.limit = 0
        self.ids = itertools.count()
        self.pacing = pacing
        self.now = 0.0
        self.known: dict[str, Lease] = {}
        self.ends: Counter[str] = Counter()
        self.given: Counter[tuple[str, int]] = Counter()
        self.acknowledged = self.stepped = 0
        self.work: dict[str, Lease] = {}
        self.late: list[int] = []
        self.c = self.fresh()
        for client in self.names:
            self.does(self.c.enrolled(client, self.names[client], self.now))

    names: ClassVar = {f"id{i}": f"name{i}" for i in range(CLIENTS)}

    def fresh(self) -> Coordinator:
        return self.pacing(self.rules, new_id=lambda: f"t{next(self.ids)}")

    @property
    def over(self) -> bool:
        return self.c.phase is Phase.FINISHED

    @property
    def stepping(self) -> bool:
        return self.c.phase is Phase.STEPPING

    def does(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Issue):
                for lease in action.leases:
                    assert lease.id not in self.known
                    self.known[lease.id] = lease
                if self.pacing is Buffered and self.c.phase is Phase.TRAINING:
                    assert len(self.c.at_work()) <= self.rules.concurrency(CLIENTS)
            elif isinstance(action, Lapse):
                self.ended(action.lease, Fate.STALE)
        self.check()

    def ended(self, lease: Lease, fate: Fate) -> None:
        self.ends[lease.id] += 1
        self.known[lease.id] = replace(lease, fate=fate)

    def check(self) -> None:
        c = self.c
        assert all(count == 1 for count in self.ends.values()), "every lease ends once"
        assert all(count == 1 for count in self.given.values()), "no client gives twice on one version"
        assert max(Counter(c.at_work()).values(), default=0) <= 1, "no client has two tickets"
        if self.rules.once:
            sums = Counter(lease.client for lease in c.leases.values() if lease.fate is Fate.COUNTED)
            assert max(sums.values(), default=0) <= 1, "nobody is in one sum twice"
        open_ = {t for t, lease in c.leases.items() if lease.fate is Fate.OPEN}
        assert open_ == set(self.known) - set(self.ends)
        if self.over:
            assert not open_

    def step(self) -> None:
        """Commit the round that is due."""
        c = self.c
        counted = sum(lease.fate is Fate.COUNTED for lease in c.leases.values())
        assert counted >= self.rules.min_updates
        self.stepped += counted
        ended, renewed = c.closing()
        for lease in ended:
            self.ended(lease, Fate.STALE)
        assert all(not lease.handed and lease.round == c.round + 1 for lease in renewed)
        self.does(c.stepped(self.now))

    def ask(self, client: str) -> None:
        self.does(self.c.met(client, self.now))
        answer = self.c.poll(client, self.now)
        self.work.pop(client, None)
        if isinstance(answer, Grant):
            lease = answer.lease
            assert lease.client == client
            assert lease.round == self.c.round, "work is on the newest version"
            assert answer.seconds_left >= 0
            self.work[client] = lease

    def admitted(self, client: str) -> Lease | None:
        if self.c.phase is Phase.STEPPING and self.pacing is Buffered:
            self.step()  # as ``Federation.finish`` does
        lease = self.work.pop(client, None)
        try:
            return None if lease is None else self.c.admit(lease.id, client, self.known[lease.id])
        except Refused as error:
            if error.fault != "FAULT_STALE_ROUND":
                raise
            return None

    def push(self, client: str) -> None:
        lease = self.admitted(client)
        if lease is None or lease.fate is not Fate.OPEN:
            return
        self.ended(lease, Fate.COUNTED)
        if not lease.evaluate:
            late = self.c.round - lease.round
            assert 0 <= late <= self.rules.max_staleness
            self.late.append(late)
            self.given[client, lease.round] += 1
            self.acknowledged += 1
        self.does(self.c.counted(lease.id, self.now))
        assert self.c.counted(lease.id, self.now) == []

    def give_back(self, client: str, declined: bool) -> None:
        lease = self.admitted(client)
        if lease is not None and lease.fate is Fate.OPEN:
            self.ended(lease, Fate.DECLINED if declined else Fate.REJECTED)
            self.does((self.c.declined if declined else self.c.rejected)(lease.id, self.now))

    def tick(self) -> None:
        self.does(self.c.tick(self.now))

    def restart(self) -> None:
        """What a store gives back; a round that was due to be closed was training."""
        old, phase = self.c, self.c.phase
        self.c = self.fresh()
        stored = Phase.TRAINING if phase is Phase.STEPPING else phase
        self.c.restore(old.round, stored, old.target, old.leases.values(), self.names, self.now)
        self.does(self.c.resume_actions(self.now))

    def event(self, kind: str, client: str) -> None:
        match kind:
            case "ask":
                self.ask(client)
            case "push":
                self.push(client)
            case "decline" | "reject":
                self.give_back(client, kind == "decline")
            case "tick":
                self.tick()
            case "step":
                if self.c.phase is Phase.STEPPING:
                    self.step()
            case "restart":
                self.restart()

    def settle(self) -> None:
        """Whatever happened, from now on every device answers: the run must come to its end."""
        for _ in range(40 * self.rules.rounds):
            for client in self.names:
                self.now += 1.0
                self.push(client)
                self.event("step", client)
                self.ask(client)
                self.tick()
            if self.over:
                break
        assert self.over, f"round {self.c.round} is {self.c.phase}: {self.c.leases}"
        assert self.stepped == self.acknowledged, "what was acknowledged is in some round"
        assert set(self.ends) == set(self.known)


KINDS = ["ask", "ask", "ask", "push", "push", "push", "decline", "reject", "tick", "step", "restart"]
EVENTS = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(list(World.names)), st.floats(0, 6)), max_size=80)


def play(world: World, events: list[tuple[str, str, float]]) -> None:
    for kind, client, wait in events:
        world.now += wait
        if not world.over:
            world.event(kind, client)
    if not world.over:
        world.settle()


@given(EVENTS, st.integers(1, 6), st.integers(1, CLIENTS), st.integers(0, 3), st.booleans(), st.booleans())
def test_a_buffer_keeps_the_laws(
    events: list[tuple[str, str, float]], buffer: int, concurrency: int, staleness: int, evaluation: bool, once: bool
) -> None:
    world = World(
        Buffered,
        buffer=buffer,
        concurrency=lambda _: concurrency,
        max_staleness=staleness,
        final_evaluation=evaluation,
        min_updates=min(2, buffer),
        once=once,
    )
    play(world, events)


@given(
    EVENTS, st.integers(1, CLIENTS), st.sampled_from([1.0, 1.5, 2.0]), st.integers(0, 3), st.booleans(), st.booleans()
)
def test_rounds_that_fold_late_updates_keep_the_laws(
    events: list[tuple[str, str, float]], size: int, over: float, staleness: int, evaluation: bool, once: bool
) -> None:
    world = World(
        Cohorts,
        cohort=lambda n: min(n, size),
        over_select=over,
        max_staleness=staleness,
        final_evaluation=evaluation,
        once=once,
    )
    play(world, events)


def buffered(**rules: Any) -> World:
    return World(Buffered, **{"buffer": 2, "concurrency": lambda _: 3, "max_staleness": 2, **rules})


def test_a_buffer_closes_after_so_many_updates_and_work_goes_on_into_the_next_round() -> None:
    world = buffered()
    at_work = list(world.c.at_work())
    assert len(at_work) == 3
    for client in at_work:
        world.ask(client)
    world.push(at_work[0])
    assert len(world.c.at_work()) == 3, "another one took its place"
    world.push(at_work[1])
    assert world.c.phase is Phase.STEPPING
    world.step()
    assert (world.c.round, world.c.phase) == (2, Phase.TRAINING)
    world.push(at_work[2])
    assert world.late == [0, 0, 1]


def test_a_ticket_that_nobody_took_moves_on_with_the_version() -> None:
    world = buffered(buffer=1)
    taker, waiting, _ = world.c.at_work()
    before = next(lease for lease in world.c.leases.values() if lease.client == waiting)
    world.ask(taker)
    world.push(taker)
    world.step()
    world.ask(waiting)
    assert (world.work[waiting].id, world.work[waiting].round) == (before.id, 2)


def test_who_asks_for_work_has_lost_what_it_had() -> None:
    world = buffered(buffer=1, concurrency=lambda _: CLIENTS)
    first, second, *_ = world.c.at_work()
    world.ask(first)
    world.ask(second)
    lost = world.work[second]
    world.push(first)
    world.step()
    world.ask(second)
    assert world.ends[lost.id] == 1
    assert (world.work[second].id != lost.id, world.work[second].round) == (True, 2)
    with pytest.raises(Refused) as refusal:
        world.c.admit(lost.id, second)
    assert refusal.value.fault == "FAULT_STALE_ROUND"


def test_a_client_that_vanished_frees_its_place_and_is_not_asked_until_it_calls() -> None:
    world = buffered(concurrency=lambda _: 1)
    (gone,) = world.c.at_work()
    world.ask(gone)
    world.now = 10.0
    world.tick()
    (other,) = world.c.at_work()
    assert other != gone
    for _ in range(3):
        world.now += 10.0
        world.tick()
        assert gone not in world.c.at_work()


def test_one_that_vanished_is_invited_to_the_same_version_again_when_it_calls() -> None:
    world = buffered(buffer=9, concurrency=lambda _: CLIENTS)
    gone, *others = world.c.at_work()
    world.now = 5.0
    world.ask(gone)
    before = world.work[gone]
    world.now = 9.0
    for client in others:
        world.ask(client)
    for world.now in (10.0, 15.0):  # the round's time, extended; and its own
        world.tick()
    assert set(world.c.at_work()) == set(others)
    world.ask(gone)
    assert world.work[gone].round == before.round
    assert world.work[gone].id != before.id


@pytest.mark.parametrize("least", [2, CLIENTS])
def test_a_buffer_that_nobody_can_fill_closes_with_what_it_has(least: int) -> None:
    world = buffered(buffer=9, concurrency=lambda _: CLIENTS, min_updates=least)
    for client in world.names:
        world.ask(client)
        world.push(client)
    assert world.c.phase is Phase.STEPPING


def test_work_has_a_time_of_its_own_from_when_it_was_given_or_moved_on() -> None:
    world = buffered(buffer=1, concurrency=lambda _: 2)
    taker, waiting = world.c.at_work()
    world.ask(taker)
    world.now = 8.0
    world.push(taker)
    world.step()
    (third,) = set(world.c.at_work()) - {waiting}
    world.now = 10.0  # of the run's first lease; what moved on at 8 has as long again, and so has what is new
    world.tick()
    assert {waiting, third} == set(world.c.at_work())
    world.now = 17.0
    world.ask(third)
    world.now = 18.0
    world.tick()
    assert waiting not in world.c.at_work()
    assert third in world.c.at_work(), "it took its work at 17"


def test_who_was_refused_is_asked_again_after_the_deadline() -> None:
    world = buffered(concurrency=lambda _: CLIENTS)
    for client in world.names:
        world.ask(client)
        world.give_back(client, declined=False)
    assert not world.c.at_work()
    world.now = 10.0
    world.tick()
    assert len(world.c.at_work()) == CLIENTS


def test_how_many_train_at_once_is_a_share_of_all_who_are_here_or_at_work() -> None:
    world = buffered(buffer=9, concurrency=lambda n: n - 1, presence_s=5.0)
    first, *others = world.c.at_work()
    (idle,) = world.names.keys() - {first, *others}
    for client in (first, *others):
        world.ask(client)
    world.now = 6.0  # nobody has called for so long
    world.push(first)
    assert set(world.c.at_work()) == set(others)
    world.ask(idle)
    assert set(world.c.at_work()) == {idle, *others}


def test_a_later_round_that_a_restart_found_waits_for_nobody() -> None:
    world = buffered()
    c = world.fresh()
    c.restore(2, Phase.GATHERING, 0, [], world.names, 0.0)
    c.tick(0.0)
    assert c.phase is Phase.TRAINING


def test_after_a_restart_nobody_is_invited_until_the_idle_ones_had_time_to_call() -> None:
    world = buffered(concurrency=lambda _: 2, buffer=9, regroup_s=5.0)
    first, second = world.c.at_work()
    world.ask(first)
    world.push(first)
    (third,) = set(world.c.at_work()) - {second}
    world.restart()
    assert world.c.due == world.now + 5.0, "those who were idle have so long to call"
    world.push(second) if second in world.work else world.ask(second)
    world.ask(third)
    world.push(third)
    assert third not in world.c.at_work()
    assert len(world.c.at_work()) == 1
    world.now += 5.0
    world.tick()
    assert isinstance(world.c.poll(third, world.now), Hold), "it has given its update on this version"


def test_late_updates_count_into_a_round_but_not_towards_its_cohort() -> None:
    world = World(Cohorts, cohort=lambda _: 2, over_select=2.0, max_staleness=1, min_updates=2)
    on_time, tardy = world.c.at_work()[:2], world.c.at_work()[2:]
    for client in (*on_time, *tardy):
        world.ask(client)
    for client in on_time:
        world.push(client)
    world.step()
    assert set(world.c.at_work()) >= set(tardy)
    for client in world.names.keys() - set(tardy):
        world.ask(client)
    assert world.c.phase is Phase.TRAINING
    for client in tardy:
        world.push(client)
    assert world.late == [0, 0, 1, 1]
    assert not world.stepping, "its own cohort is at work"
    for client in world.names.keys() - set(tardy):
        world.push(client)
    assert world.stepping


def test_without_patience_rounds_end_their_leases_as_ever() -> None:
    world = World(Cohorts, cohort=lambda _: 1, over_select=2.0)
    first, second = world.c.at_work()
    world.ask(first)
    world.ask(second)
    world.push(first)
    assert [lease.client for lease in world.c.closing().ended] == [second]
    world.step()
    assert second not in {lease.client for lease in world.c.leases.values() if lease.round == 1}


def test_a_run_that_ends_lets_go_of_what_is_open() -> None:
    world = buffered()
    actions = world.c.stop("enough")
    assert [type(action) for action in actions] == [Lapse] * 3 + [Finish]
    world.does(actions)
    assert world.over
    assert not any(isinstance(action, Step) for action in world.c.tick(100.0))


def test_one_that_declines_ends_nothing_while_a_late_one_is_at_work() -> None:
    ids = itertools.count()
    rules = Rules(
        rounds=5, cohort=lambda n: n, select=uniform(0), min_clients=2, deadline_s=10.0, max_staleness=3, presence_s=1e9
    )
    c = Cohorts(rules, new_id=lambda: f"t{next(ids)}")
    for client in ("a", "b"):
        c.enrolled(client, client, 0.0)
    assert all(isinstance(c.poll(client, 0.0), Grant) for client in ("a", "b"))
    leases = {lease.client: lease for lease in c.leases.values()}
    c.counted(leases["a"].id, 1.0)
    assert any(isinstance(action, Step) for action in c.tick(11.0))
    c.closing()
    c.stepped(11.0)
    (again,) = [lease for lease in c.leases.values() if lease.round == 2]
    assert again.client == "a"
    assert c.declined(again.id, 12.0) == []
    assert c.phase is Phase.TRAINING
    assert any(isinstance(action, Step) for action in [*c.counted(leases["b"].id, 13.0), *c.tick(30.0)])


@pytest.mark.parametrize("once", [False, True])
def test_where_clients_are_protected_nobody_is_in_one_sum_twice(once: bool) -> None:
    world = buffered(buffer=3, concurrency=lambda _: CLIENTS, once=once)
    slow, *quick = world.c.at_work()
    for client in (slow, *quick):
        world.ask(client)
    for client in quick[:3]:
        world.push(client)
    world.step()
    world.push(slow)  # a version late
    world.ask(slow)
    assert (slow in world.work) == (not once)
