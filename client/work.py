"""One ticket's work, from the model that arrived to an update ready to be sent. No link, no files.

The walk, in the order that keeps privacy true: measure the arriving model -> train as the rule says (local privacy acts
inside), which keeps what is personal -> delta against the base -> encode with feedback. What the device will remember
of it comes back beside the payload, as something still to be acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from fedpress.client.learner import Learner
from fedpress.client.pace import Pace
from fedpress.client.probe import Encoding, Probe
from fedpress.client.rules import rule
from fedpress.client.spending import resolved
from fedpress.client.trainers.trainer import Trainer
from fedpress.client.vault import Kept, Pending
from fedpress.compression.codec import Codec, Context, State, assumed
from fedpress.compression.grouped import per_group
from fedpress.compression.memory import tag
from fedpress.compression.payload import sealed, unseal
from fedpress.compression.registry import parse
from fedpress.compression.statistics import change
from fedpress.compression.stream import Stream
from fedpress.errors import BudgetSpent, SpecError
from fedpress.params import Spec, Tensors, finite
from fedpress.privacy import accounting
from fedpress.privacy.accounting import History
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import DIVERGED, SHORT, checksum, put_metrics

#: A report's numbers are float32, and bounded: more energy is said to be this, and a larger loss is no number.
_MOST: Final = 1e18


class Done(NamedTuple):
    """The update, and everything this device's data has spent, this round included."""

    pending: Pending
    history: History


class Declined(NamedTuple):
    """Nothing worth sending came of it."""

    reason: str
    history: History


def perform(
    ticket: pb.Ticket,
    spec: Spec,
    shared: Tensors,
    step: Tensors | None,
    kept: Kept,
    history: History,
    trainer: Trainer,
    seed: int,
    name: str,
    pace: Pace,
    probe: Probe | None = None,
) -> Done | Declined:
    """Do what ``ticket`` says to the model whose shared tensors are ``shared``, of ``spec``; the newest download added
    ``step``.

    Everything drawn depends on ``seed``, ``name`` and the ticket's round alone. Declines before any training that would
    overspend. Raises SpecError, CodecError, PrivacyError or PlanError for work this device could never do.
    """
    local = rule(ticket.rule)
    check_names(ticket.rule, trainer.spec, shared)
    privacy = resolved(ticket, local.uses(), trainer) if ticket.HasField("privacy") else None
    own, report, spent = kept.personal, pb.Report(), history
    if ticket.evaluate or ticket.work == pb.WORK_EVALUATE:
        rng = Stream.of(seed, name, ticket.round, "personal")
        learner = Learner(trainer, ticket.training, rng, seed, privacy, history)
        began = pace.now()
        try:
            with _fitting(ticket.rule):
                personal = local.personal(shared, own, learner)
        except BudgetSpent as error:
            return Declined(str(error), learner.history)
        metrics, report.held_out = trainer.evaluate(personal)
        pace.took(began, steps=learner.steps, evaluated=report.held_out)
        put_metrics(report, metrics)
        history = learner.history
    if ticket.work == pb.WORK_EVALUATE:
        if privacy is not None and history != spent:
            report.epsilon = accounting.epsilon(history, privacy.delta)
        return Done(_pending(ticket, b"", report, kept), history)

    learner = Learner(trainer, ticket.training, Stream.of(seed, name, ticket.round, "train"), seed, privacy, history)
    began = pace.now()
    try:
        with _fitting(ticket.rule):
            outcome = local.train(shared, own, learner)
    except BudgetSpent as error:  # perhaps in the middle: what came before it is spent
        return Declined(str(error), learner.history)
    report.train_seconds = pace.took(began, steps=learner.steps)
    report.examples, report.steps = outcome.examples, outcome.steps
    report.facts.update(outcome.facts)
    history = learner.history
    if outcome.examples == 0:
        return Declined("no examples to train on", history)
    if privacy is not None:  # the loss of private examples would leave without noise
        report.epsilon = accounting.epsilon(history, privacy.delta)
    elif abs(outcome.loss) <= _MOST:  # false for NaN
        report.loss = outcome.loss
    else:
        return Declined(f"{DIVERGED}: the loss is not finite; lower train.lr", history)

    trained = {n: a if n in spec.named("frozen") else outcome.shared.get(n, a) for n, a in shared.items()}
    plain = parse(ticket.upload_codec)
    delta = change(trained, shared, spec, plain)
    if not (finite(trained) and finite(delta) and finite(outcome.own)):
        return Declined(f"{DIVERGED}: the model is not finite; lower train.lr", history)
    codec = per_group(plain, spec)
    residual = _state(kept, codec, spec)
    there = assumed(codec, residual, spec)
    memory = tag(codec, there, spec)
    context = Context(ticket.seed, ticket.round, step)
    if probe is not None:
        probe(Encoding(codec, delta, residual, context, Stream.of(seed, name, ticket.round, "encode")))
    began = pace.now()
    payload, residual, _, loss = sealed(codec, delta, residual, context, Stream.of(seed, name, ticket.round, "encode"))
    report.encode_seconds = pace.took(began, encoded=spec.size)
    report.given, report.lost = (min(energy, _MOST) for energy in loss)
    if len(payload) > ticket.max_update_bytes:
        return Declined(
            f"the update has {len(payload)} bytes, more than the {ticket.max_update_bytes} allowed", history
        )
    settled = outcome.settle(unseal(codec, payload, there, context, spec)[0]) if outcome.settle else {}
    after_all = Kept(codec.text, residual, {**own, **outcome.own, **settled})
    return Done(_pending(ticket, payload, report, after_all, memory), history)


def _state(kept: Kept, codec: Codec, spec: Spec) -> State:
    """The codec's memory: what was kept of it, or of one of its kind at another rate; anew where nothing fits."""
    begun = codec.init(spec)
    if not kept.codec or parse(kept.codec).id != codec.id:
        return begun
    old = kept.residual
    return {
        n: old[n] if n in old and (old[n].shape, old[n].dtype) == (a.shape, a.dtype) else a for n, a in begun.items()
    }


def check_names(said: pb.Rule, own: Spec, shared: Tensors) -> None:
    """Raise SpecError for personal tensors that this device's model does not have, or that are to travel."""
    unknown = [n for n in said.personal if n not in own.names]
    if unknown:
        raise SpecError(f"Expected personal tensors of this device's model, got '{unknown[0]}' from the server.")
    sent = [n for n in said.personal if n in shared]
    if sent:
        raise SpecError(f"Expected personal tensors to stay on this device, the server would have '{sent[0]}' travel.")


@contextmanager
def _fitting(said: pb.Rule) -> Iterator[None]:
    """What a ticket's rule looks for and does not find is the ticket's fault. Raises SpecError."""
    try:
        yield
    except (KeyError, ZeroDivisionError) as error:
        raise SpecError(f"Expected a rule that fits what travels, '{said.name}' does not: {error!r}.") from error


def _pending(ticket: pb.Ticket, payload: bytes, report: pb.Report, kept: Kept, memory: int = 0) -> Pending:
    header = pb.PushHeader(
        ticket=ticket.id,
        base=ticket.model[:SHORT],
        size=len(payload),
        checksum=checksum(payload),
        report=report,
        memory=memory,
    )
    return Pending(header, payload, kept)
