"""What a round tells a device to do: the plan's keys for training, privacy and upload as a ``Ticket``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from fedpress.compression.stream import Stream
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.leases import Lease

#: Learning rate after a share ``t`` in [0, 1] of the rounds, between ``a`` (first) and ``b`` (last).
SCHEDULES: Final[Mapping[str, Callable[[float, float, float], float]]] = {
    "constant": lambda a, b, t: a,  # noqa: ARG005
    "linear": lambda a, b, t: a + (b - a) * t,
    "cosine": lambda a, b, t: b + (a - b) * 0.5 * (1.0 + math.cos(math.pi * t)),
}


def shared_seed(plan: Plan, round_: int) -> int:
    """``Context.seed`` of a round: shared by all its clients, so that codes drawn from it may be summed."""
    return Stream.of(plan.run.seed, "ticket", round_).seed()


def training(plan: Plan, round_: int) -> pb.Training:
    """The local training of one round, the schedule applied."""
    train = plan.train
    share = (round_ - 1) / max(1, plan.run.rounds - 1)
    return pb.Training(
        epochs=train.epochs,
        max_steps=train.max_steps,
        batch_size=train.batch_size,
        optimizer=train.optimizer,
        lr=SCHEDULES[train.schedule](train.lr, train.lr_end, share),
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
    )


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
    every = plan.evaluate.clients_every
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
        evaluate=lease.evaluate or bool(every and (lease.round - 1) % every == 0),
    )
    privacy = plan.privacy
    if privacy.mode == "local":
        made.privacy.noise_multiplier = privacy.noise_multiplier
        made.privacy.clip_norm = privacy.clip_norm
        made.privacy.delta = privacy.delta
        made.privacy.max_epsilon = privacy.max_epsilon
    return made
