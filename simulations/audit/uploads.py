"""Gradient inversion on a run's own uploads: its task, its model before round 1, its training, its codec, its privacy.

A client that holds a single example is the attacker's best case, and the model before training the most telling one.
Each such client's update is attacked uncompressed; as uploaded; and as the mean of several uploads at the same model,
in which error feedback sends what it held back. Beside them stands what needs no update: the mean of the class.

Deviations: plain local training, without a strategy's own rule; the model stands still between uploads. The attacker
sees single updates, as the server does. Noise that the server adds to the sum protects from others, not from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from fedpress.client.trainers.trainer import Trainer
from fedpress.compression.codec import Context
from fedpress.compression.grouped import per_group
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Array, Spec, Tensors, flatten, subtract, unflatten
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.sections import AUTO
from fedpress.server.choice import Facts, upload
from fedpress.server.tickets import shared_seed, training
from fedpress.simulations.audit.findings import Reconstruction
from fedpress.simulations.audit.releases import local_privacy
from fedpress.simulations.problem import Problem
from fedpress.task import ClientData, Split

#: Examples that are attacked, one after the other.
EXAMPLES: Final = 4
#: Uploads of the same client whose mean is attacked.
UPLOADS: Final = 8
_STEPS: Final = 300


def steps(plan: Plan) -> int:
    """Steps of the whole probe, for who shows how far it is."""
    return EXAMPLES * _STEPS * (4 if plan.privacy.mode == "local" else 3)


def obstacle(problem: Problem) -> str | None:
    """Why a run's uploads cannot be inverted, or None."""
    from torch.nn.modules import batchnorm

    from fedpress import torch_model

    if problem.data.train.x.dtype.kind != "f":
        return f"inversion: the inputs of '{problem.task.name}' are no numbers that a gradient could be followed to"
    module = torch_model.build(problem.task, problem.plan.run.seed)
    if any(isinstance(layer, batchnorm._BatchNorm) for layer in module.modules()):
        return "inversion: the model normalises over batches, and a client with a single example cannot train it"
    return None


def probe(
    problem: Problem, victims: Split, seed: int, each: Callable[[], object] = lambda: None
) -> list[Reconstruction]:
    """Attack what clients that hold one of ``victims`` each would upload. ``each`` is called at every step."""
    from fedpress import torch_model
    from fedpress.privacy.audit.inversion import Range, invert

    known = problem.data.test if len(problem.data.test) else problem.data.train
    inside = Range(float(known.x.min()), float(known.x.max()))
    module = torch_model.build(problem.task, problem.plan.run.seed)
    errors: dict[str, list[float]] = {}
    for i in range(len(victims)):
        one = victims.take(np.array([i]))
        for given, update in _seen(problem, one, i):
            own = {n: update[n] for n in problem.initial.spec.named("weight")}
            found = invert(problem.task, module, own, one.y, one.x.shape[1:], inside, seed + i, _STEPS, each)
            errors.setdefault(given, []).append(_mse(found, one.x))
        errors.setdefault("no update: the mean of the class", []).append(_mse(_guess(known, one), one.x))
        drawn = np.random.default_rng(seed + i).uniform(inside.low, inside.high, one.x.shape)
        errors.setdefault("no update: at random", []).append(_mse(drawn, one.x))
    return [
        Reconstruction(given, float(np.mean(some)), float(np.mean([inside.psnr(e) for e in some])), len(some))
        for given, some in errors.items()
    ]


def _seen(problem: Problem, one: Split, victim: int) -> Iterator[tuple[str, Tensors]]:
    """What an attacker may have of a client that holds ``one`` example: its name in the report, and the update."""
    plan, base, spec = problem.plan, problem.initial.tensors, problem.initial.spec
    trainer = problem.trainer_on(ClientData(one, one.take(np.zeros(1, np.bool_))))
    text = plan.upload.codec
    if text == AUTO:
        text = upload(Facts.of(plan, spec.size), plan.upload.floor).codec
    privacy = local_privacy(plan) if plan.privacy.mode == "local" else None
    noised = ", noised," if privacy else ""
    yield "the bare update", _update(trainer, plan, base, victim, 1, None)
    updates = [_update(trainer, plan, base, victim, round_, privacy) for round_ in range(1, UPLOADS + 1)]
    if privacy:
        yield "the update, noised", updates[0]
    arrived = _arrived(plan, text, spec, updates, victim)
    yield f"an upload{noised} by {text}", arrived[0]
    mean = np.mean([flatten(a).astype(np.float64) for a in arrived], axis=0)
    yield f"the mean of {UPLOADS} uploads", unflatten(mean.astype(np.float32), spec)


def _update(
    trainer: Trainer, plan: Plan, base: Tensors, victim: int, round_: int, privacy: pb.LocalPrivacy | None
) -> Tensors:
    rng = Stream.of(plan.run.seed, "audit", victim, round_, "train")
    return subtract(trainer.train(base, training(plan, 1), rng, privacy).tensors, base)


def _arrived(plan: Plan, text: str, spec: Spec, updates: list[Tensors], victim: int) -> list[Tensors]:
    """What the server decodes of a client's uploads, both ends remembering what they do in a run."""
    codec = per_group(parse(text), spec)
    ours, theirs = codec.init(spec), codec.memory(spec)
    found: list[Tensors] = []
    for round_, update in enumerate(updates, start=1):
        context = Context(shared_seed(plan, round_), round_)
        rng = Stream.of(plan.run.seed, "audit", victim, round_, "encode")
        payload, ours = seal(codec, update, ours, context, rng)
        arrived, theirs = unseal(codec, payload, theirs, context, spec)
        found.append({n: np.array(a) for n, a in arrived.items()})
    return found


def _guess(known: Split, one: Split) -> Array:
    """The mean of the examples with the same target, or of all."""
    same = np.all((known.y == one.y[0]).reshape(len(known), -1), axis=1)
    mean: Array = known.x[same if same.any() else slice(None)].mean(axis=0, keepdims=True)
    return mean


def _mse(found: Array, truth: Array) -> float:
    return float(np.mean((found.astype(np.float64) - truth) ** 2))
