"""What a round tells a device to do: the plan's keys for training, privacy and upload as a ``Ticket``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, get_args

from fedpress.compression.stream import Stream
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.sections import Train
from fedpress.server.leases import Lease

#: Learning rate ``k`` rounds after the warm-up, a share ``t`` in [0, 1] of the way from there to the last round.
SCHEDULES: Final[Mapping[str, Callable[[Train, int, float], float]]] = {
    "constant": lambda train, k, t: train.lr,  # noqa: ARG005
    "linear": lambda train, k, t: train.lr + (train.lr_end - train.lr) * t,  # noqa: ARG005
    "cosine": lambda train, k, t: (  # noqa: ARG005 - Loshchilov and Hutter 2017, without restarts
        train.lr_end + (train.lr - train.lr_end) * 0.5 * (1.0 + math.cos(math.pi * t))
    ),
    "step": lambda train, k, t: train.lr * train.lr_drop ** (k // train.lr_drop_every),  # noqa: ARG005
}

if set(SCHEDULES) != set(get_args(Train.model_fields["schedule"].annotation)):
    raise RuntimeError("The schedules here and those of the plan differ.")


def learning_rate(plan: Plan, round_: int) -> float:
    """The learning rate of a round: ``train.schedule``, behind a linear warm-up (Goyal et al. 2017).

    Of ``w`` rounds of warm-up, round ``r`` has ``r / (w + 1)`` of ``train.lr``; the schedule begins in round ``w + 1``.
    """
    train, warmup = plan.train, plan.train.warmup_rounds
    if round_ <= warmup:
        return train.lr * round_ / (warmup + 1)
    after = round_ - 1 - warmup
    return SCHEDULES[train.schedule](train, after, after / max(1, plan.run.rounds - 1 - warmup))


def epochs(plan: Plan, round_: int) -> int:
    """Passes over the local data in a round: ``train.epochs``, or on the line to ``train.epochs_end``, halves up."""
    first, last = plan.train.epochs, plan.train.epochs_end
    if not last:
        return first
    steps = max(1, plan.run.rounds - 1)
    return (2 * (first * steps + (last - first) * (round_ - 1)) + steps) // (2 * steps)


def shared_seed(plan: Plan, round_: int) -> int:
    """``Context.seed`` of a round: shared by all its clients, so that codes drawn from it may be summed."""
    return Stream.of(plan.run.seed, "ticket", round_).seed()


def training(plan: Plan, round_: int) -> pb.Training:
    """The local training of one round, the schedules applied."""
    train = plan.train
    return pb.Training(
        epochs=epochs(plan, round_),
        max_steps=train.max_steps,
        batch_size=train.batch_size,
        optimizer=train.optimizer,
        lr=learning_rate(plan, round_),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
    )


def local_privacy(plan: Plan) -> pb.LocalPrivacy:
    """What devices are told of [privacy]: the noise, or what the whole run may spend and how much work it means."""
    privacy, rounds = plan.privacy, plan.run.rounds
    made = pb.LocalPrivacy(
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
        max_epsilon=privacy.max_epsilon,
        clipping="" if privacy.clipping == "flat" else privacy.clipping,
    )
    if not privacy.epsilon:
        made.noise_multiplier = privacy.noise_multiplier
        return made
    every = plan.evaluate.clients_every
    made.target_epsilon, made.rounds = privacy.epsilon, rounds
    made.passes = sum(epochs(plan, round_) for round_ in range(1, rounds + 1))
    made.evaluations = -(-rounds // every) + 1 if every else 0
    return made


def asked(plan: Plan, lease: Lease) -> bool:
    """The device is to report metrics of the model that arrives."""
    every = plan.evaluate.clients_every
    return lease.evaluate or bool(every and (lease.round - 1) % every == 0)


def ticket(
    plan: Plan,
    lease: Lease,
    seconds_left: float,
    rule: pb.Rule,
    model: str,
    recipe: Iterable[pb.Blob],
    codec: str,
    limit: int,
) -> pb.Ticket:
    """The ticket of one lease: work on version ``model``, got by ``recipe``; an update of at most ``limit`` bytes."""
    made = pb.Ticket(
        id=bytes.fromhex(lease.id),
        work=pb.WORK_EVALUATE if lease.evaluate else pb.WORK_TRAIN,
        round=lease.round,
        model=bytes.fromhex(model),
        recipe=recipe,
        upload_codec=codec,
        seed=shared_seed(plan, lease.round),
        seconds_left=seconds_left if math.isfinite(seconds_left) else 0.0,
        max_update_bytes=limit,
        training=training(plan, lease.round),
        rule=rule,
        evaluate=asked(plan, lease),
    )
    if lease.evaluate:  # a schedule may have ended at 0, where nothing can be fine-tuned
        made.training.lr = plan.train.lr
    privacy = plan.privacy
    if privacy.mode == "local":
        made.privacy.CopyFrom(local_privacy(plan))
    return made
