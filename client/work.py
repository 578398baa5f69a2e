"""One ticket's work, from the model that arrived to an update ready to be sent. No link, no files.

The walk, in the order that keeps privacy true: measure the arriving model -> train (local privacy acts inside) -> delta
against the base -> the rule keeps what is personal -> encode with feedback. What the device will remember of it comes
back beside the payload, as something still to be acknowledged.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from fedpress.client.pace import Pace
from fedpress.client.probe import Encoding, Probe
from fedpress.client.rules.rule import rule
from fedpress.client.trainers.trainer import Trainer
from fedpress.client.vault import Kept, Pending
from fedpress.compression.codec import Codec, Context, State, assumed
from fedpress.compression.memory import tag
from fedpress.compression.payload import seal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import SpecError
from fedpress.params import Spec, Tensors, finite, subtract
from fedpress.privacy import accounting
from fedpress.privacy.accounting import History
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import SHORT, checksum, put_metrics


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
    """Do what ``ticket`` says to the model whose shared tensors are ``shared``; the newest download added ``step``.

    Everything drawn depends on ``seed``, ``name`` and the ticket's round alone. Raises BudgetSpent before any training
    that would overspend, SpecError, CodecError, PrivacyError or PlanError for work this device could never do.
    """
    local = rule(ticket.rule, trainer.spec)
    model = local.merge(shared, _personal(ticket.rule, kept.personal, trainer, seed))
    report = pb.Report()
    if ticket.evaluate or ticket.work == pb.WORK_EVALUATE:
        began = pace.now()
        metrics, report.held_out = trainer.evaluate(model)
        pace.took(began, evaluated=report.held_out)
        put_metrics(report, metrics)
    if ticket.work == pb.WORK_EVALUATE:
        return Done(_pending(ticket, b"", report, kept), history)

    privacy = ticket.privacy if ticket.HasField("privacy") else None
    began = pace.now()
    trained = trainer.train(model, ticket.training, Stream.of(seed, name, ticket.round, "train"), privacy, history)
    report.train_seconds = pace.took(began, steps=trained.steps)
    report.examples, report.steps = trained.examples, trained.steps
    if privacy is None:
        report.loss = trained.loss if isfinite(trained.loss) else 0.0
    else:  # the loss of private examples would leave without noise
        history = accounting.extended(history, trained.spent) if trained.spent else history
        report.epsilon = accounting.epsilon(history, privacy.delta)
    if trained.examples == 0:
        return Declined("no examples to train on", history)

    after, personal = local.split(trained.tensors)
    delta = subtract(after, shared)
    if not (finite(delta) and finite(personal)):
        return Declined("training diverged: the model is not finite; lower train.lr", history)
    codec = parse(ticket.upload_codec)
    residual = _state(kept, codec, Spec.of(delta))
    memory = tag(codec, assumed(codec, residual, Spec.of(delta)), Spec.of(delta))
    context = Context(ticket.seed, ticket.round, step)
    if probe is not None:
        probe(Encoding(codec, delta, residual, context, Stream.of(seed, name, ticket.round, "encode")))
    began = pace.now()
    payload, residual = seal(codec, delta, residual, context, Stream.of(seed, name, ticket.round, "encode"))
    report.encode_seconds = pace.took(began, encoded=Spec.of(delta).size)
    if len(payload) > ticket.max_update_bytes:
        return Declined(
            f"the update has {len(payload)} bytes, more than the {ticket.max_update_bytes} allowed", history
        )
    after_all = Kept(codec.text, residual, {**kept.personal, **personal})
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


def check_spec(shared: Spec, own: Spec) -> None:
    """Raise SpecError, naming the tensor, unless ``shared`` is ``own`` less some tensors, in the same order."""
    mine = {t.name: t for t in own}
    for t in shared:
        if t.name not in mine or mine[t.name] != t:
            have = f"{mine[t.name].dtype}{list(mine[t.name].shape)}" if t.name in mine else "no such tensor"
            raise SpecError(
                f"The run trains a tensor '{t.name}' {t.dtype}{list(t.shape)}, this device's model has {have}: "
                "is its task, or its version of it, another one?"
            )
    if list(shared.names) != [n for n in own.names if n in set(shared.names)]:
        raise SpecError("The run's tensors are those of this device's model in another order: is its task another one?")


def _personal(said: pb.Rule, kept: Tensors, trainer: Trainer, seed: int) -> Tensors:
    """The device's own tensors: what it kept where that fits this model, the run's initial ones where not."""
    shapes = {t.name: t.shape for t in trainer.spec}
    unknown = [n for n in said.personal if n not in shapes]
    if unknown:
        raise SpecError(f"Expected personal tensors of this device's model, got '{unknown[0]}' from the server.")
    fitting = {n: kept[n] for n in said.personal if n in kept and kept[n].shape == shapes[n]}
    if len(fitting) == len(said.personal):
        return fitting
    return {**{n: a for n, a in trainer.initial(seed).items() if n in said.personal}, **fitting}


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
