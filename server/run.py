"""A run's rounds, from the first to the last, without sockets: opened, closed, measured, resumed after a crash.

It drives the ``Coordinator`` (who, when), keeps the ``Store`` (what must not be lost), steps the strategy and publishes
versions. ``Federation`` adds what devices call. What takes long, such as closing a round, waits in a queue that the
skin drains with ``advance``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fedpress.compression.codec import Loss, energy
from fedpress.compression.layout import ZEROS, begin, spec_of
from fedpress.compression.registry import ids_of
from fedpress.compression.registry import parse as parse_codec
from fedpress.errors import BudgetSpent, PlanError, SpecError
from fedpress.params import Model, Spec, Tensors, finite, ordered
from fedpress.plan import Plan
from fedpress.privacy.central import Central
from fedpress.privacy.ledger import Ledger
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import domains, events
from fedpress.server.blocks import check_blocks
from fedpress.server.candidates import Candidates
from fedpress.server.choice import possible
from fedpress.server.claim import claim
from fedpress.server.coordinator import Here
from fedpress.server.enrolment import Enrolment
from fedpress.server.guarded import Guarded
from fedpress.server.inbox import Inbox
from fedpress.server.leases import Action, Fate, Finish, Issue, Lapse, Note, Phase, Step
from fedpress.server.measures import Measures
from fedpress.server.memories import room
from fedpress.server.meter import Meter
from fedpress.server.pacing import paced
from fedpress.server.purse import Purse
from fedpress.server.rounds import Cover, Outcome, diverged, evaluation_record, round_record, with_metrics
from fedpress.server.store import Store
from fedpress.server.strategies import Aggregate, Strategy
from fedpress.server.strategies import build as build_strategy
from fedpress.server.updates import Updates
from fedpress.server.versions import Versions, publisher
from fedpress.server.watch import Watcher


@dataclass(frozen=True)
class Pending:
    """A model to be measured on the server's data: call ``Run.evaluated`` with the result."""

    round: int
    model: Tensors


class Run:
    """One run. ``initial`` is the whole task's model before round 1; which of its tensors travel is the strategy's to
    say.

    ``clock`` gives seconds (monotonic). ``listen`` hears ``server.events``. ``here(name, round, seconds)`` is what a
    simulation knows of who is there, so many seconds into the run. ``ledger``: what privacy is written down in, where a
    plan has any; ``noise``: where central privacy's comes from, the operating system unless a test gives a stream.
    Raises PlanError for a plan that does not go with the model, StoreError if the store holds another run.
    """

    def __init__(
        self,
        plan: Plan,
        initial: Model,
        store: Store,
        clock: Callable[[], float],
        listen: events.Listener,
        here: Here | None = None,
        ledger: Ledger | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.strategy: Strategy = build_strategy(plan)
        self.full_spec = initial.spec
        self.layout = self.strategy.layout(self.full_spec)
        self.spec = spec_of(self.layout, self.full_spec)
        self._noise = noise or Noise.secret()
        self._central = Central.of(plan)
        self.run_id = claim(store, self.spec, plan, self._central)
        self.versions = Versions(plan, self.spec, store)
        self.meter = Meter((int(store.meta("wire_up") or 0), int(store.meta("wire_down") or 0)))
        self.finished = ""
        self.diverged = False  # training, or the strategy's step, gave no finite numbers, and that ended the run
        self.stirred = 0  # grows whenever a held request for work may have another answer
        self.pending: deque[Pending] = deque()
        self._clock, self._listen = clock, listen
        self._inbox = Inbox(store)
        self._todo: deque[Step] = deque()
        self._taken: set[str] = set()
        self._began = self._opened = clock()
        self._before = float(store.meta("elapsed") or 0.0)
        texts = (*possible(plan.upload), *possible(plan.download))
        needs = frozenset[str]().union(*(ids_of(parse_codec(text)) for text in texts))
        self._enrolment = Enrolment(store, needs, plan.train.trainer, self.full_spec, room(plan, self.spec))
        self._guarded = (
            None if self._central is None else Guarded(domains.weights(self.spec), self._central, self._noise)
        )
        self._purse = Purse(plan, self._central, ledger, self.run_id)
        self._cover = Cover.of(plan.privacy)
        self._updates = Updates(plan, self.strategy, self.spec, store, self.versions, self._enrolment, self._guarded)
        self._candidates = Candidates(store, self._enrolment)
        self._coordinator = paced(plan, self._central, self._noise, self._candidates, self._may, self._there(here))
        self._measures = Measures(plan, self.whole, listen)
        self._watcher = Watcher(plan, listen)
        self._initial = begin(self.layout, initial.tensors)

    def start(self) -> None:
        """Begin the run, or continue what the store holds. To be called once, before any other call."""
        if self.store.meta("round") is None:
            self._begin(self._initial)
        else:
            self._resume()
        self._initial = {}

    # -- the driver's side ----------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Do one piece of what is due, such as closing a round; False if nothing was."""
        if not self._todo:
            return False
        step = self._todo.popleft()
        if self._coordinator.phase is Phase.STEPPING:  # nobody has stopped the run since
            self._close_round(step.round)
        return True

    @property
    def full(self) -> bool:
        """A full buffer is due to be stepped: updates that come now are of the next round, and wait for it."""
        return bool(self._todo and self.plan.cohort.buffer)

    def tick(self) -> None:
        """Let deadlines pass."""
        self._do(self._coordinator.tick(self._clock()))

    @property
    def due(self) -> float:
        """When ``tick`` has something to do next, by the run's clock. See ``Coordinator.due``."""
        return self._coordinator.due

    def stop(self, reason: str) -> None:
        """End the run early; what is committed stays."""
        self._do(self._coordinator.stop(reason))

    def evaluated(self, pending: Pending, metrics: Mapping[str, float]) -> None:
        """The server's measure of the model after a round: completes its record."""
        record = self._watcher.measured(with_metrics(self.store.round(pending.round), metrics))
        self._measures.by_server(pending.round, metrics, pending.model)
        self.store.set_round(pending.round, record)
        self._listen(events.RoundClosed(record, pending.model))
        self._watcher.say(record)
        if self._measures.due(pending.round):
            self._go_on(pending.round)

    @property
    def round(self) -> int:
        """The current round, from 1."""
        return self._coordinator.round

    @property
    def enrolled(self) -> int:
        """Clients that ever enrolled."""
        return len(self._enrolment)

    @property
    def elapsed(self) -> float:
        """Seconds into the run, those before a restart among them."""
        return self._before + self._clock() - self._began

    @property
    def waiting_for(self) -> str:
        """Why nothing happens, for people: the phase and who is at work."""
        at_work = [self._enrolment.name(c) for c in self._coordinator.at_work()]
        return f"round {self.round} is {self._coordinator.phase.value}" + (
            f", at work: {', '.join(at_work)}" * bool(at_work)
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _there(self, here: Here | None) -> Here | None:
        """What a simulation knows by seconds into the run, by the coordinator's clock."""
        return here and (lambda name, round_, now: here(name, round_, now - self._began + self._before))

    def _may(self, client: str, name: str, round_: int) -> bool:
        """A client may be invited to a round: its budget allows it, and the noise that is correlated over rounds."""
        bands = self.plan.privacy.bands
        last = self._candidates(client, name).last_round if bands else 0
        rested = not bands or last in (0, round_) or round_ - last >= bands
        return rested and self._purse.may(name, round_)

    def _begin(self, model: Tensors) -> None:
        with self.store.transaction():
            self.versions.publish(model, self.strategy.init(domains.weights(self.spec)), 0)
            self.store.set_round(0, round_record(self.store, 0, self.spec, 0.0, 0.0))
            self._mark(Phase.GATHERING)
        self._hold(0)
        self._queue_evaluation(0)
        if not self._measures.due(0):
            self._go_on(0)

    def _resume(self) -> None:
        self.versions.restore()
        self._purse.attempt = int(self.store.meta("attempt") or 0)
        round_ = int(self.store.meta("round") or 1)
        phase = Phase(self.store.meta("phase"))
        evaluating = phase is Phase.EVALUATING
        leases = self.store.leases(round_, evaluating) if phase is not Phase.FINISHED else []
        done = max(int(r["round"]) for r in self.store.rounds() if not r.get("evaluation"))
        if phase in (Phase.FINISHED, Phase.EVALUATING) and done < self.plan.run.rounds:
            with self.store.transaction():
                self.store.expire(round_)
                if self._central is not None:  # another cohort is drawn, and one sum is of one cohort
                    self.store.give_up(round_)
                    self._purse.attempt += 1
                    self.store.set_meta("attempt", str(self._purse.attempt))
            round_, phase, leases = done + 1, Phase.GATHERING, []
        target = int(self.store.meta("target") or 0)
        self._coordinator.restore(round_, phase, target, leases, self._enrolment.names, self._clock())
        if self._guarded is not None and (kept := self.store.tensors("guarded")):
            self._guarded.restore(kept)
        self._updates.restore(round_, counting=phase in (Phase.GATHERING, Phase.TRAINING))
        self._measures.restore(self.store.rounds())
        self._watcher.restore(self.store.rounds())
        if self._measures.due(done) and not self.store.round(done)["metrics"]:
            self._hold(done)
            self._queue_evaluation(done)  # the server died between committing the round and measuring it
        if phase is Phase.FINISHED:
            self.finished = "the run was finished before"
        elif not self.pending and (reason := self._ends(done)):
            self.stop(reason)
            return
        self._do(self._coordinator.resume_actions(self._clock()))

    def _mark(self, phase: Phase) -> None:
        self._mark_as(self._coordinator.round, phase)

    def _mark_as(self, round_: int, phase: Phase) -> None:
        up, down = self.meter.wire
        facts: dict[str, object] = {"round": round_, "phase": phase.value, "target": self._coordinator.target}
        facts |= {"elapsed": self.elapsed, "wire_up": up, "wire_down": down}
        for key, value in facts.items():
            self.store.set_meta(key, str(value))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Issue):
                self._issue(action)
            elif isinstance(action, Lapse):
                self._lapse(action)
            elif isinstance(action, Step):
                self._todo.append(action)
            elif isinstance(action, Note):
                self._listen(events.Noted(action.text))
            elif isinstance(action, Finish):
                self._finish(action.reason)

    def _issue(self, action: Issue) -> None:
        self.stirred += 1
        evaluating = self._coordinator.phase is Phase.EVALUATING
        with self.store.transaction():
            self.store.add_leases(action.leases, self._updates.choose(action.leases))
            self._mark(self._coordinator.phase)
        for lease in action.leases if not evaluating else ():
            self._candidates.invited(lease.client, lease.round)
        if action.opens:
            self._opened = self._clock()
        names = tuple(self._enrolment.name(lease.client) for lease in action.leases)
        self._listen(events.RoundOpened(action.round, self.plan.run.rounds, names, evaluating))

    def _lapse(self, action: Lapse) -> None:
        lease = action.lease
        with self.store.transaction():
            self._inbox.discard(lease.id)
            self.store.end_lease(lease.id, self.round, Fate.STALE, self.meter.take(lease.client))
        self.stirred += 1
        if action.reason:
            self._listen(events.ClientFailed(self._enrolment.name(lease.client), lease.round, action.reason))

    def _close_round(self, round_: int) -> None:
        arrived = self.model
        try:
            epsilon = self._purse.pay(round_, partial(self._paying, round_))
        except BudgetSpent as error:
            self._do(self._coordinator.stop(str(error)))
            return
        aggregate = self._updates.aggregate(self.enrolled)
        released = self._guarded.metrics() if self._central and self._guarded and self._central.measures(round_) else {}
        model, state = domains.step(self.strategy, self.spec, self.versions.exact, aggregate, self.versions.state)
        if not finite(model):
            self.diverged = True
            self._do(self._coordinator.stop(f"round {round_} diverged: the model is not finite; lower train.lr"))
            return
        now = self._clock()
        with self.store.transaction():
            ended, renewed = self._coordinator.closing()
            for lease in ended:
                self.store.end_lease(lease.id, round_, Fate.STALE, self.meter.take(lease.client))
            choices = self._updates.choose(renewed)
            for lease in renewed:
                self.store.move_lease(lease, choices[lease.id])
            self.versions.publish(model, state, round_)
            outcome = self._outcome(aggregate)
            record = round_record(self.store, round_, self.spec, now - self._opened, self.elapsed, self._cover, outcome)
            if self._guarded is not None:
                self.store.set_tensors("guarded", self._guarded.state)
                record |= {"client_metrics": released, "epsilon": epsilon}
            self._measures.by_clients(round_ - 1, record["client_metrics"], arrived)
            self.store.set_round(round_, self._watcher.trained(record))
            open_ = self._coordinator.open_tickets() - {lease.id for lease in ended}
            self._inbox.clear(but=open_)
            self._updates.memories.settle()
            done = round_ >= self.plan.run.rounds
            self._mark_as(round_ if done else round_ + 1, Phase.FINISHED if done else Phase.GATHERING)
        for lease in ended:
            self._candidates.late(lease.client, record["seconds"])
        self._updates.next_round(open_)
        self._taken &= open_
        self._opened = now
        self.stirred += 1
        for lease in ended:
            if not done and lease.round < round_:
                late = f"its work of round {lease.round} is more than {self.plan.cohort.max_staleness} versions late"
                self._listen(events.ClientFailed(self._enrolment.name(lease.client), lease.round, late))
        self._hold(round_)
        self._queue_evaluation(round_)
        self._do(self._coordinator.stepped(now))
        if not self._measures.due(round_):
            self._go_on(round_)

    def _outcome(self, aggregate: Aggregate) -> Outcome:
        """What the version that was published now is like. The true mean of the updates is not known: its energy is
        taken for what arrived and what was lost on the way, as if the errors were of independent directions."""
        derived = {part.name for part in self.layout if part.start == ZEROS}  # beside the model, and not coded
        weights = [n for n in self.spec.named("weight") or self.spec.names if n not in derived]
        arrived = energy({name: aggregate.mean[name] for name in weights})
        mean = None if self._guarded is not None else Loss(arrived + aggregate.lost, aggregate.lost)
        return Outcome(mean, self.versions.loss, self.versions.moved)

    def _paying(self, round_: int) -> dict[str, pb.Report]:
        """Whose updates are in a round, by name, and what they said."""
        counted = self.store.counted(round_)
        return {self._enrolment.name(lease.client): pb.Report.FromString(said) for lease, said, _ in counted}

    def _hold(self, round_: int) -> None:
        """No round opens until it is known what the model after this one is worth, where the run may end with it."""
        self._coordinator.held = self._measures.early or bool(self._refusal(round_))

    def _refusal(self, round_: int) -> str:
        """Why the next round would pass the privacy budget; "" if it would not."""
        return self._purse.refusal(round_ + 1, self._enrolment.names.values())

    def _ends(self, round_: int) -> str:
        """Why the run ends early, after this round; "" where it does not."""
        return "" if round_ >= self.plan.run.rounds else self._measures.reason or self._refusal(round_)

    def _go_on(self, round_: int) -> None:
        """What the model after a round is worth is known: end the run, or let the next round open."""
        if reason := self._ends(round_):
            self.stop(reason)
        elif self._coordinator.held:
            self._coordinator.held = False
            self.tick()

    @property
    def whole(self) -> bool:
        """The server holds a whole model, which it can measure and ship."""
        return set(self.full_spec.names) <= set(self.spec.names)

    @property
    def model(self) -> Tensors:
        """The newest version: the whole model in its spec's order, or all that travels where that is no whole one."""
        return ordered(self.versions.exact, self.full_spec) if self.whole else self.versions.exact

    def _queue_evaluation(self, round_: int) -> None:
        pending = Pending(round_, self.model)
        if self._measures.due(round_):
            self.pending.append(pending)
        else:
            self.evaluated(pending, {})

    def _finish(self, reason: str) -> None:
        evaluated = self.store.leases(self.round, evaluate=True)
        open_ = all(record["round"] != self.round for record in self.store.rounds())
        self.diverged = self.diverged or (open_ and diverged(self.store, self.round))
        with self.store.transaction():
            if evaluated:
                seconds = self._clock() - self._opened
                record = evaluation_record(self.store, self.round, self.spec, seconds, self.elapsed, self._cover)
                record = self._watcher.measured(record)
                self._measures.by_clients(self.round, record["client_metrics"], self.model)
                self.store.set_round(self.round + 1, record)
            self._mark(Phase.FINISHED)
            self.store.set_meta("ended", reason)
        if evaluated:
            self._listen(events.RoundClosed(record, self.model))
            self._watcher.say(record)
        self.finished = reason
        self.stirred += 1
        self._listen(events.RunFinished(reason))


def check(plan: Plan, spec: Spec) -> None:
    """Raise PlanError for what in a plan cannot go with a model of ``spec``, before anything starts."""
    strategy, trainable = build_strategy(plan), spec.named("weight")
    try:
        travels = spec_of(strategy.layout(spec), spec)
    except SpecError as error:
        raise PlanError(f"{error} (strategy.personal)") from error
    if not trainable:
        raise PlanError(
            "Expected a model with parameters that training changes, got only buffers and parameters that ask for no "
            "gradient (task.name). Set requires_grad on those that are to be trained."
        )
    for names in strategy.apart(spec):
        if not set(names) & set(trainable):
            raise PlanError(
                f"Expected a tensor that training changes among those that '{strategy.id}' trains by themselves, got "
                f"only buffers and frozen tensors: {', '.join(names)} (strategy.personal). Training changes "
                f"{', '.join(trainable)}."
            )
    check_blocks(plan, travels)
    publisher(plan, travels)
    room(plan, travels)
    Central.of(plan)
