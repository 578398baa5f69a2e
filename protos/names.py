"""How the wire names things: short where only known things must be told apart. Inside, hashes are lower-case hex."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from fedpress.protos import fleet_pb2 as pb

#: Bytes of a hash that stand for it where both sides know what it could be.
SHORT: Final = 8

#: How a device begins its reason to decline, where training gave numbers that are not finite.
DIVERGED: Final = "training diverged"

_FIELDS: Final[Mapping[str, str]] = {"accuracy": "accuracy", "loss": "held_out_loss"}
_LARGEST_FLOAT: Final = 3.4e38


def short(content_hash: str) -> bytes:
    """The first bytes of a hash given in hex; nothing of ""."""
    return bytes.fromhex(content_hash[: 2 * SHORT])


def checksum(payload: bytes | bytearray) -> bytes:
    """What a ``PushHeader`` says of its payload: enough against a damaged byte, no defence against a sender."""
    return hashlib.sha256(payload).digest()[:SHORT]


def put_metrics(report: pb.Report, metrics: Mapping[str, float]) -> None:
    """Write metrics into a report; those that are not finite in float32 are left out."""
    for name, value in metrics.items():
        if not abs(value) <= _LARGEST_FLOAT:  # true for NaN too
            continue
        if name in _FIELDS:
            setattr(report, _FIELDS[name], value)
        else:
            report.others[name] = value


def metrics_of(report: pb.Report) -> dict[str, float]:
    """The metrics a report holds, by name."""
    named = {name: getattr(report, field) for name, field in _FIELDS.items() if report.HasField(field)}
    return {**report.others, **named}
