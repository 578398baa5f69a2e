"""How much noise a ticket's privacy takes on this device: as told, or what makes a whole run cost just the target.

A device knows what the server does not: how many examples it has, so how often each is in a batch, and what the rule
does with the data. From a target it counts all the steps that the run can ask of it and solves for the noise, the same
in every round. It is an upper bound, for every round counts: a device that is not invited each time, or a run that ends
early, spends less. Where a device may train more often than once a round (without cohorts), the target is still kept:
it is the device's budget, and work beyond is declined.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from fedpress.client.rules.rule import Use
from fedpress.client.trainers.batches import check
from fedpress.client.trainers.trainer import Differentiable, Trainer
from fedpress.errors import PlanError, PrivacyError
from fedpress.privacy.accounting import History, Steps, extended, noise_for
from fedpress.protos import fleet_pb2 as pb


def resolved(ticket: pb.Ticket, uses: Sequence[Use], trainer: Trainer) -> pb.LocalPrivacy:
    """The ticket's privacy, noise included, with a target as the budget.

    Raises PlanError for a rule whose use of the data cannot be hidden, PrivacyError for a target out of reach.
    """
    if not uses:
        raise PlanError(f"Expected no local privacy with the rule '{ticket.rule.name}' (privacy.mode).")
    made = pb.LocalPrivacy()
    made.CopyFrom(ticket.privacy)
    if not made.target_epsilon:
        return made
    if not (made.target_epsilon > 0 and 0 < made.delta < 1 and made.rounds):
        raise PrivacyError(f"Expected epsilon > 0, 0 < delta < 1 and a number of rounds from the server, got {made}.")
    if not isinstance(trainer, Differentiable):
        raise PlanError(f"Expected a trainer that counts its examples, got '{trainer.name}' (train.trainer).")
    check(ticket.training)
    made.max_epsilon = made.target_epsilon
    if trainer.examples:
        made.noise_multiplier = noise_for(made.target_epsilon, made.delta, work(ticket, uses, trainer.examples))
    return made


def work(ticket: pb.Ticket, uses: Sequence[Use], examples: int) -> History:
    """All the noisy steps of a run on so many examples, in units of the noise multiplier."""
    training, said = ticket.training, ticket.privacy
    per_epoch = -(-examples // training.batch_size)
    found: History = ()
    for use in uses:
        times = said.evaluations if use.evaluating else said.rounds
        steps = times * use.epochs * per_epoch if use.epochs else said.passes * per_epoch
        limits = [limit for limit in (training.max_steps, use.batches) if limit]
        steps = min([steps, *(times * limit for limit in limits)])
        found = extended(found, Steps(1 / sqrt(use.gradients), 1 / per_epoch, steps))
    return found
