"""Whole rounds of a strategy without sockets: its server half, its local rule and real trainers, in one loop.

``perform`` is the device's own work, ``Gathering`` and ``domains`` the server's; codecs are ``raw`` unless a test names
others, so that what is left between the two halves is the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from fedpress.client.learner import Learner
from fedpress.client.pace import Measured
from fedpress.client.rules import rule
from fedpress.client.trainers.numpy_trainer import NumpyTrainer
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.trainers.trainer import Trainer
from fedpress.client.vault import Kept
from fedpress.client.work import Done, perform
from fedpress.compression.codec import Context
from fedpress.compression.layout import begin, part, spec_of
from fedpress.compression.payload import max_bytes, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Array, Tensors
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server import domains
from fedpress.server.aggregate import Gathering
from fedpress.server.leases import Lease
from fedpress.server.strategies import Arrival, Strategy, build
from fedpress.server.tickets import ticket, training
from fedpress.task import ClientData, Split, Task


@dataclass
class Played:
    """What came of some rounds. ``model``: all that travels; ``own``: what each client kept; ``personal``: the whole
    model that each would use now; ``reports``: per round, by client; ``payloads``: bytes of the last round's."""

    strategy: Strategy
    model: Tensors
    state: Tensors
    own: list[Tensors]
    personal: list[Tensors] = field(default_factory=list)
    reports: list[dict[int, pb.Report]] = field(default_factory=list)
    payloads: dict[int, int] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Array]:
        """The model alone, without what travels beside it."""
        return part("", self.model)


Rounds = Callable[..., Played]


@pytest.fixture(scope="session")
def rounds() -> Rounds:
    """``rounds(trainers, n, "strategy.name=...", ..., cohorts=[[0, 1], [1]], initial=model)``.

    Plays ``n`` rounds among ``trainers``, client ``i`` having the i-th. ``cohorts``: who takes part in each round, by
    default all; ``initial``: the whole model before round 1, by default as the seed draws it; ``joining``: clients
    enrol when they first take part, by default all before round 1.
    """

    def play(
        trainers: Sequence[Trainer],
        n: int,
        *overrides: str,
        cohorts: Sequence[Sequence[int]] | None = None,
        initial: Tensors | None = None,
        joining: bool = False,
    ) -> Played:
        plan = load(
            None,
            [
                "upload.codec=raw",
                "download.codec=raw",
                "evaluate.clients_every=0",
                "train.batch_size=4",
                f"clients.count={len(trainers)}",
                f"run.rounds={max(1, n)}",
                *overrides,
            ],
        )
        strategy, full, seed = build(plan), trainers[0].spec, plan.run.seed
        layout, said = strategy.layout(full), strategy.rule(full)
        spec = spec_of(layout, full)
        kept = [Kept() for _ in trainers]
        model = begin(layout, trainers[0].initial(seed) if initial is None else initial)
        played = Played(strategy, model, strategy.init(domains.weights(spec)), [])
        upload = parse(plan.upload.codec)
        enrolled = set() if joining else set(range(len(trainers)))
        for round_ in range(1, n + 1):
            gathering, base = Gathering(domains.moving(spec)), played.model
            reports: dict[int, pb.Report] = {}
            for i in cohorts[round_ - 1] if cohorts else range(len(trainers)):
                lease = Lease(f"{i:02x}", str(i), round_)
                order = ticket(plan, lease, 0.0, said, "00", [], upload.text, max_bytes(upload, spec))
                done = perform(
                    order, spec, base, None, kept[i], (), trainers[i], seed, f"client-{i}", Measured(lambda: 0.0)
                )
                assert isinstance(done, Done), done
                kept[i], report = done.pending.kept, done.pending.header.report
                context = Context(order.seed, round_, None)
                update, _ = unseal(upload, done.pending.payload, upload.memory(spec), context, spec)
                arrival = Arrival(report, order.training, 0, partial(dict, base), partial(dict, base))
                gathering.fold(domains.read(strategy, spec, update, arrival), strategy.share(arrival))
                reports[i], played.payloads[i] = report, len(done.pending.payload)
            enrolled.update(reports)
            aggregate = gathering.aggregate(len(enrolled))
            played.model, played.state = domains.step(strategy, spec, base, aggregate, played.state)
            played.reports.append(reports)
        played.own = [k.personal for k in kept]
        for i, trainer in enumerate(trainers):
            learner = Learner(trainer, training(plan, max(1, n)), Stream.of(seed, f"client-{i}", n, "personal"), seed)
            played.personal.append(rule(said).personal(played.model, played.own[i], learner))
        return played

    return play


# -- trainers ---------------------------------------------------------------------------------------------------------


def _perceptron(seed: int) -> dict[str, Array]:
    """4 inputs, 5 hidden, 3 classes; drawn uniform in [-0.5, 0.5)."""
    shapes = {"body.weight": (5, 4), "body.bias": (5,), "head.weight": (3, 5), "head.bias": (3,)}
    rng = Stream.of(seed, "perceptron")
    return {n: rng.uniform(int(np.prod(s))).reshape(s) - np.float32(0.5) for n, s in shapes.items()}


@pytest.fixture(scope="session")
def perceptrons() -> Callable[..., list[Trainer]]:
    """``perceptrons(seed, sizes)``: NumPy trainers of one small model, each with that many random examples."""

    def make(seed: int, sizes: Sequence[int]) -> list[Trainer]:
        made: list[Trainer] = []
        for client, size in enumerate(sizes):
            rng = Stream.of(seed, "data", client)
            x, y = rng.uniform(4 * size).reshape(size, 4) - np.float32(0.5), rng.u64(size) % np.uint64(3)
            split = Split(x, y.astype(np.int64))
            made.append(NumpyTrainer(_perceptron, ClientData(split, split)))
        return made

    return make


class _Point(torch.nn.Module):
    """One parameter ``w`` and no inputs to speak of: for each row, ``w`` beside the row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.w.expand(len(x), -1), x])


def _bowl(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over rows of ``a / 2 * (w - b)**2``, summed over elements; ``a`` are the inputs, ``b`` the targets."""
    w, a = outputs
    loss: torch.Tensor = (0.5 * a * (w - targets) ** 2).sum(1).mean()
    return loss


@pytest.fixture(scope="session")
def bowl() -> Callable[..., Trainer]:
    """``bowl(a, b, examples=1)``: a torch trainer whose loss is ``a / 2 * (w - b)**2`` in one parameter ``w``, which
    begins at 0, on every example alike: each step's gradient is ``a * (w - b)``, whatever the batch."""

    def make(a: Sequence[float] | float, b: Sequence[float] | float, examples: int = 1) -> Trainer:
        rows = [np.tile(np.atleast_1d(np.asarray(v, np.float32)), (examples, 1)) for v in (a, b)]
        split = Split(*rows)

        def data(_: Any) -> Any:
            return split, split

        task = Task("bowl", lambda: _Point(rows[0].shape[1]), data, _bowl, lambda outputs, targets: {})
        return TorchTrainer(task, ClientData(split, split), 0, "cpu")

    return make
