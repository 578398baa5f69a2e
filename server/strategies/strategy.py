"""The contract of a server strategy: what travels, what an update counts for, and the server's step.

One file per published algorithm, named for it. Updates are folded as they arrive into a running weighted sum (memory is
O(model), never O(clients)); the strategy sees their mean once per round. It reads, steps and remembers weights alone:
running statistics are averaged and frozen tensors stay, whatever the strategy (``server.domains``). What it remembers
between rounds is a value: plain tensors, checkpointed and restored by the store. Its client half is named by ``rule``
and lives in ``client.rules``. The fields of its dataclass are its options in the plan's section ``strategy``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from fedpress.compression.layout import Layout
from fedpress.params import Spec, Tensors
from fedpress.protos import fleet_pb2 as pb


@dataclass(frozen=True)
class Arrival:
    """An update that was decoded. ``staleness``: versions between its base and the newest one.

    ``training``: what its ticket said. ``base()``: the version it is a change of, as devices saw it, or the newest one
    where that cannot be made again; ``newest()``: the one devices would get now.
    """

    report: pb.Report
    training: pb.Training
    staleness: int
    base: Callable[[], Tensors]
    newest: Callable[[], Tensors]

    @property
    def steps(self) -> int:
        """Steps of local training, as reported; 0 for more than the ticket allowed."""
        said, per_epoch = self.training, -(-self.report.examples // max(1, self.training.batch_size))
        most = min(said.epochs * per_epoch, said.max_steps or self.report.steps)
        return self.report.steps if self.report.steps <= most else 0


@dataclass(frozen=True)
class Share:
    """What an update counts for: ``weight`` > 0 in the mean of ``scale`` times the updates, and of ``facts``.

    ``groups``: those of its groups of tensors that count; None: all. The mean of a group is over updates that count in
    it, and 0 where there is none.
    """

    weight: float
    scale: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)
    groups: Collection[str] | None = None


@dataclass(frozen=True)
class Aggregate:
    """A round's updates: the weighted mean of them and of their facts, how many, of how many clients enrolled.

    ``lost``: the energy of the mean's error, estimated from what clients say that their codecs lost, as if errors of
    clients were independent; 0 where nobody says so.
    """

    mean: Tensors
    counted: int
    population: int
    facts: Mapping[str, float] = field(default_factory=dict)
    lost: float = 0.0


class Strategy(Protocol):
    """See the module's docstring."""

    id: ClassVar[str]
    citation: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    """What it asks of a plan: names in ``server.strategies.compatibility``."""
    server_lr: ClassVar[float]
    """The server's learning rate where the plan names none."""
    corrects: ClassVar[bool]
    """Devices correct their next steps by their update as it was decoded, and so bring back what its codec lost."""

    def layout(self, full: Spec) -> Layout:
        """What travels of a model of spec ``full``, and beside it. Raises SpecError or PlanError for a bad pattern."""

    def rule(self, full: Spec) -> pb.Rule:
        """What devices are told to do."""

    def apart(self, full: Spec) -> tuple[tuple[str, ...], ...]:
        """Groups of tensors that devices train while the rest stands still; () where all move at once."""

    def share(self, arrival: Arrival) -> Share:
        """What an update counts for. A weight of 0 or less refuses it."""

    def read(self, update: Tensors, arrival: Arrival) -> Tensors:
        """An update's weights as they are folded: with what follows from them and did not have to travel."""

    def init(self, spec: Spec) -> Tensors:
        """What the strategy remembers before round 1; {} if nothing. ``spec``: of the weights that travel."""

    def step(self, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next version of the weights that travel, and the next state."""
