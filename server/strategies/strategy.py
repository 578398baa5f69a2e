"""The contract of a server strategy: what travels, what an update weighs, and the server's step.

One file per published algorithm, named for it. Updates are folded as they arrive into a running weighted sum (memory is
O(model), never O(clients)); the strategy sees their mean once per round. What it remembers between rounds is a value:
plain tensors, checkpointed and restored by the store. Its client half is named by ``rule`` and lives in
``client.rules``.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from fedpress.params import Spec, Tensors
from fedpress.protos import fleet_pb2 as pb


class Strategy(Protocol):
    """See the module's docstring."""

    id: ClassVar[str]
    citation: ClassVar[str]

    def personal(self, spec: Spec) -> tuple[str, ...]:
        """Names of the tensors of the full model that stay on the device. Raises SpecError for a bad pattern."""

    def rule(self, spec: Spec) -> pb.Rule:
        """What devices are told to do besides plain training."""

    def weight(self, report: pb.Report, staleness: int) -> float:
        """The weight of an update, > 0, that is ``staleness`` versions late; with 0, its share of the mean."""

    def init(self, spec: Spec) -> Tensors:
        """What the strategy remembers before round 1; {} if nothing."""

    def step(self, model: Tensors, mean: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next model and state, from the weighted mean of the round's updates (deltas)."""
