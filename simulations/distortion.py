"""What compression did to a run's real updates: a histogram of errors and the share of zeros, per tensor.

In a simulation every client notes it of its update in the last round, in a file beside its vault, from which the report
draws. It is for pictures: no message carries it, and a real device writes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from fedpress.client.probe import Encoding, Probe
from fedpress.errors import CodecError, DataError
from fedpress.plan import Plan
from fedpress.server.rounds import Cover
from fedpress.simulations.records import first_fault
from fedpress.simulations.tap import passed

FILE: Final = "distortion.json"
#: Errors are counted in so many cells from -REACH to REACH root mean squares of what was coded; the outer two have the
#: rest.
REACH: Final = 4.0
CELLS: Final = 81


@dataclass(frozen=True)
class Layer:
    """One tensor: its parameters, how many of them arrived as zeros, and counts of errors."""

    size: int
    zeros: int
    counts: tuple[int, ...]


Layers = Mapping[str, Layer]
_LAYERS: Final = TypeAdapter(dict[str, Layer])


def last_round(plan: Plan, directory: Path) -> Probe | None:
    """A probe that writes the file into ``directory`` when it sees the update of the plan's last round; None where
    nothing may be written down of single clients."""
    if Cover.of(plan.privacy) != Cover():
        return None
    rounds = plan.run.rounds

    def probe(encoding: Encoding) -> None:
        if encoding.context.round == rounds:
            with suppress(CodecError):  # a codec that cannot be looked into costs the picture, not the run
                (directory / FILE).write_bytes(_LAYERS.dump_json(layers(encoding)))

    return probe


def layers(encoding: Encoding) -> dict[str, Layer]:
    """What encoding does to each tensor."""
    seen, arrived, *_ = passed(encoding)
    square = sum(float(np.sum(np.square(a, dtype=np.float64))) for a in seen.values())
    scale = (square / max(1, sum(a.size for a in seen.values()))) ** 0.5 or 1.0
    found = {}
    for name, array in seen.items():
        error = np.ravel(array - arrived[name]) / scale
        counts, _ = np.histogram(np.clip(error, -REACH, REACH), CELLS, (-REACH, REACH))
        zeros = array.size - int(np.count_nonzero(arrived[name]))
        found[name] = Layer(array.size, zeros, tuple(counts.tolist()))
    return found


def read(run_dir: Path) -> dict[str, Layer]:
    """The sums over all clients that noted something, in the model's order; empty if none did. Raises DataError."""
    total: dict[str, Layer] = {}
    for path in sorted((run_dir / "clients").glob(f"*/{FILE}")):
        try:
            one = _LAYERS.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
            raise DataError(f"Expected what a client noted of its update in '{path}'. {fault}") from error
        for name, layer in one.items():
            total[name] = _sum(total[name], layer) if name in total else layer
    return total


def _sum(a: Layer, b: Layer) -> Layer:
    return Layer(a.size + b.size, a.zeros + b.zeros, tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)))
