"""Every error fedpress raises on purpose. The tree, drawn once:

    FedpressError
    ├── PlanError            the plan file or an override is wrong: the user mends it
    ├── TaskError            the task module does not keep its contract
    ├── DataError            a data set is missing, damaged or of the wrong shape
    ├── MissingExtra         an optional dependency is not installed
    ├── SpecError            tensors do not match the names, shapes and dtypes agreed on
    ├── CodecError           a codec's text form or options are wrong
    ├── DecodeError          a payload is malformed: whoever sent it is at fault
    ├── VaultError           what a device keeps on disk is unreadable
    ├── StoreError           what the server keeps on disk is unreadable or of another run
    ├── PrivacyError         a privacy statement cannot be made
    │   ├── BudgetSpent      the next round would overspend epsilon
    │   └── LedgerError      the ledger of what was spent is unreadable, or was changed
    ├── RunFailed            a run ended without having done its job, such as with a loss that is NaN
    └── Refused              one side of the wire refuses a call; carries a Fault name
        └── ServerGone       the server cannot be reached (worth another try)

Messages say whose fault it is and what to do: ``Expected clip_norm > 0, got -1.0 (privacy.clip_norm).``
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedpressError(Exception):
    """Root of all errors that fedpress raises on purpose."""


class PlanError(FedpressError):
    """The plan file or an override is wrong."""


class TaskError(FedpressError):
    """A task module does not keep the contract of ``fedpress.task``."""


class DataError(FedpressError):
    """A data set is missing, damaged, or of the wrong shape."""


class MissingExtra(FedpressError):
    """An optional dependency is not installed; the message names the pip extra."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'fedpress[{extra}]'.")


class SpecError(FedpressError):
    """Tensors do not match the agreed names, shapes and dtypes."""


class CodecError(FedpressError):
    """A codec's text form or options are wrong."""


class DecodeError(FedpressError):
    """A payload is malformed. Raised in bounded time and memory; the sender is at fault."""


class VaultError(FedpressError):
    """What a device keeps on disk cannot be read."""


class StoreError(FedpressError):
    """What the server keeps on disk cannot be read, or belongs to another run."""


class PrivacyError(FedpressError):
    """A privacy statement cannot be made with these parameters."""


class BudgetSpent(PrivacyError):
    """The next round would spend more than the budget allows."""


class LedgerError(PrivacyError):
    """The ledger of what was spent cannot be read, or is not what was written."""


class RunFailed(FedpressError):
    """A run ended without having done its job; its summary and report are written."""


class Refused(FedpressError):
    """A call over the wire was refused. ``fault`` is the name of a ``fedpress.v1.Fault``."""

    def __init__(self, fault: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.retry_after = retry_after


class ServerGone(Refused):
    """The server cannot be reached now; trying again later is right."""

    def __init__(self, message: str) -> None:
        super().__init__("FAULT_UNSPECIFIED", message)


def closest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known name most like ``name``, else the list of known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(names)}."
