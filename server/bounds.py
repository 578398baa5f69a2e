"""What a device may say at most: far above anything true, far below where sums overflow or a page breaks."""

from __future__ import annotations

from typing import Final

from fedpress.errors import DecodeError, Refused
from fedpress.params import Tensors
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import metrics_of

LARGEST: Final = 1e18
MOST_EXAMPLES: Final = 1 << 32
MOST_METRICS: Final = 64
LONGEST_METRIC: Final = 64
MOST_NAMES: Final = 128
LONGEST_NAME: Final = 128


def check_update(update: Tensors) -> None:
    """Raise DecodeError for a change so large that a float32 model could not take it."""
    for array in update.values():
        if array.size and max(float(array.max()), -float(array.min())) > LARGEST:
            raise DecodeError(f"Expected changes of magnitude {LARGEST:g} at most: float32 sums would overflow.")


def check_report(report: pb.Report) -> None:
    """Raise Refused for numbers that are not finite or absurd, and for metrics that are too many or not printable."""
    names = [*report.others, *report.facts]
    if len(names) > MOST_METRICS or not all(n.isprintable() and len(n) <= LONGEST_METRIC for n in names):
        raise Refused("FAULT_MALFORMED", f"Expected at most {MOST_METRICS} metrics with short printable names.")
    if max(report.examples, report.held_out) > MOST_EXAMPLES:
        raise Refused("FAULT_MALFORMED", f"Expected at most {MOST_EXAMPLES} examples, got {report.examples}.")
    numbers = [
        report.loss,
        report.train_seconds,
        report.encode_seconds,
        report.epsilon,
        *metrics_of(report).values(),
        *report.facts.values(),
    ]
    if not all(-LARGEST <= n <= LARGEST for n in numbers):  # false for NaN too
        raise Refused("FAULT_MALFORMED", "The update's report holds a number that is not finite, or enormous.")
    if not all(0 <= n <= LARGEST for n in (report.given, report.lost)):
        raise Refused("FAULT_MALFORMED", f"Expected energies from 0 to {LARGEST:g}, got {report.given}, {report.lost}.")


def check_capabilities(said: pb.Capabilities) -> None:
    """Raise Refused for more names, or longer ones, than a device has, and for what ``check_link`` refuses."""
    names = [*said.codecs, *said.trainers, said.device_class]
    if len(names) > MOST_NAMES or not all(n.isprintable() and len(n) <= LONGEST_NAME for n in names):
        raise Refused("FAULT_MALFORMED", f"Expected at most {MOST_NAMES} short printable names of capabilities.")
    check_link(said.link)


def check_link(said: pb.LinkRates) -> None:
    """Raise Refused for rates that are no rates."""
    if not all(0 <= rate <= LARGEST for rate in (said.up, said.down)):  # false for NaN too
        raise Refused("FAULT_MALFORMED", "Expected link rates that are finite and not negative.")
