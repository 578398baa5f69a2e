"""The inline engine in virtual time: a discrete-event simulation of a fleet, as fast as its arithmetic allows.

The federation, devices, codecs and vaults are the real ones, and so are all payload bytes. Only time is computed: each
client has a time of its own, which its work and its link move on as its profile says (``simulations.profiles``,
``engines.timed``), and the federation's clock stands at the event in hand. So a round closes at its deadline with the
clients that were fast enough, what the server measures of a client is the virtual truth, and the same seed gives the
same ``rounds.jsonl``, byte for byte.

An event is one action of one device. The agenda is a heap of them by time, ties by name; whatever is due on the server
happens between two of them, and a deadline when all events up to it are over. A request for work without an answer is
held, as a server holds it: it is answered when the federation has something new, and is made anew, which shows that its
device is still there, every ``server.long_poll_s``. What the server computes takes no time. A run that is resumed
starts its clients anew at the time that its store says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from fedpress.client import actions
from fedpress.client.device import Device
from fedpress.client.probe import Probe
from fedpress.client.vault import Vault
from fedpress.compression.stream import Stream
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import events
from fedpress.server.federation import Federation
from fedpress.simulations import distortion
from fedpress.simulations.engines.inline import away, settle, stuck
from fedpress.simulations.engines.timed import OwnTime, TimedLink, TimedPace
from fedpress.simulations.host import Host
from fedpress.simulations.problem import Problem
from fedpress.simulations.profiles import Profile
from fedpress.simulations.results import Result, Summary

#: Seconds between two calls of a device that the plan would let call all the time.
_SHORTEST_POLL_S: Final = 1.0


def virtual(problem: Problem, listen: events.Listener, resume: bool, baseline: Summary | None) -> Result:
    """Run the problem in this thread, in virtual time."""
    began, plan = time.monotonic(), problem.plan
    evaluate, shards = problem.evaluator(), sorted(enumerate(problem.names), key=lambda pair: pair[1])
    agenda = Agenda(max(_SHORTEST_POLL_S, plan.server.long_poll_s))
    here = problem.availability.here if problem.availability else None
    with (
        Host(plan, problem.initial, listen, resume=resume, durable=False, clock=agenda.clock, here=here) as host,
        ExitStack() as vaults,
    ):
        clients = []
        for shard, name in shards:
            vault = vaults.enter_context(Vault(plan.directory / "clients" / name, durable=False))
            probe = distortion.last_round(plan, vault.directory)
            clients.append(SimulatedClient(problem, shard, host.federation, vault, problem.profiles[name], probe))
        agenda.run(host.federation, clients, evaluate)
        return host.result("inline", baseline, wall_seconds=time.monotonic() - began)


class SimulatedClient:
    """A device with a time of its own."""

    def __init__(
        self, problem: Problem, shard: int, federation: Federation, vault: Vault, profile: Profile, probe: Probe | None
    ) -> None:
        self.name = problem.names[shard]
        self.own = OwnTime()
        self.link = TimedLink(federation, profile, self.own)
        self.turn = 0  # of its next event; one with another number was called off
        plan = problem.plan
        self.device = Device(
            self.link,
            vault,
            problem.trainer(shard),
            self.name,
            problem.task.name,
            patience=0.0,
            sleep=self._rest,
            probe=probe,
            pace=TimedPace(profile, self.own, plan.train.batch_size),
            away=partial(away, problem.availability, federation, self.name),
        )
        self._vault, self._profile = vault, profile
        self._luck = Stream.of(plan.run.seed, self.name, "dropout")
        self._sending = False

    def act(self) -> None:
        """Perform one action at the client's own time, which is later after it."""
        if self.link.held:
            self.device.step()  # the pause behind a Wait, which was spent waiting
            self.link.let_go()
        action = self.device.session.action
        if isinstance(action, actions.Push) and not self._sending and self._vault.pending is not None:
            header = pb.PushHeader()
            header.CopyFrom(self._vault.pending.header)
            header.offset = action.offset
            self._sending = True
            self.own.spend(self.link.begin(header, self._vault.pending.payload))
            return
        self._sending = False
        self.device.step()
        if isinstance(action, actions.Train) and action.ticket.work == pb.WORK_TRAIN:
            self.own.spend(self._away())

    def _rest(self, seconds: float) -> None:
        if not self.link.held:
            self.link.miss()
            self.own.spend(seconds)

    def _away(self) -> float:
        """Seconds for which the client vanishes with its update: mostly none."""
        lost, long = map(float, self._luck.uniform(2))
        return -self._profile.away_s * math.log1p(-long) if lost < self._profile.dropout else 0.0


class Agenda:
    """Who acts when. ``now`` is the federation's time, in seconds; ``poll`` the time for which it holds a request."""

    def __init__(self, poll: float) -> None:
        self.now = 0.0
        self._poll = poll
        self._heap: list[tuple[float, str, int]] = []

    def clock(self) -> float:
        """The federation's clock."""
        return self.now

    def run(
        self,
        federation: Federation,
        clients: Sequence[SimulatedClient],
        evaluate: Callable[[Tensors], Mapping[str, float]],
    ) -> None:
        """Until the run is over. Raises FedpressError where nobody can move it any more."""
        by_name = {client.name: client for client in clients}
        for client in clients:  # all enrol before anybody works, so that the first cohort is drawn from all
            client.act()
        self._heap = [(client.own.at, client.name, client.turn) for client in clients]
        heapify(self._heap)
        ticked, stirred, idle = -math.inf, federation.stirred, 0
        settle(federation, evaluate)
        while not federation.finished:
            due = federation.due if federation.due > ticked else math.inf
            at, name, turn = self._heap[0] if self._heap else (math.inf, "", 0)
            if due < at:
                self.now = ticked = max(self.now, due)
                federation.tick()
                idle = 0
            elif at == math.inf or idle > 2 * len(clients):
                raise stuck(federation, [client.device for client in clients])
            else:
                heappop(self._heap)
                client = by_name[name]
                if turn != client.turn:
                    continue
                self.now = client.own.at = at
                waited = client.link.held
                client.act()
                idle = idle + 1 if waited and client.link.held and due == math.inf else 0
                if client.device.stopped is None:
                    self._next(client, at + self._poll if client.link.held else client.own.at)
            settle(federation, evaluate)
            if stirred != federation.stirred:
                stirred = federation.stirred
                for client in clients:
                    if client.link.held and client.link.answered():
                        self._next(client, self.now)

    def _next(self, client: SimulatedClient, at: float) -> None:
        """The client acts ``at`` and not before, whatever was agreed."""
        client.turn += 1
        heappush(self._heap, (at, client.name, client.turn))
