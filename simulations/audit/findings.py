"""What an audit came to: ``audit.json`` in a run's directory, its table, and whether it passes the plan's gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from rich.table import Table
from rich.text import Text

from fedpress.errors import DataError
from fedpress.privacy.audit.epsilon import Guesses
from fedpress.privacy.audit.roc import Curve, Rate
from fedpress.sections import Audit
from fedpress.simulations.records import first_fault

AUDIT_FILE: Final = "audit.json"
#: Where the true positive rate is read off.
LOW: Final = (0.001, 0.01)
_MOST_POINTS: Final = 400


@dataclass(frozen=True)
class Claim:
    """What the run says of itself: (epsilon, delta) for one ``unit``, "example" or "client".

    ``of_example``: the epsilon that this means for an example that is in or not. It is the client's where the claim is
    about a client's data being replaced by others; where it is about a client that is there or not, one goes and
    another comes: twice as much.
    """

    epsilon: float
    delta: float
    unit: str
    of_example: float


@dataclass(frozen=True)
class Membership:
    """One attack on membership. ``tpr[i]``: at a false positive rate of ``LOW[i]``. ``roc``: points of the curve."""

    attack: str
    members: int
    others: int
    auc: Rate
    tpr: tuple[Rate, ...]
    guesses: Guesses
    roc: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, attack: str, curve: Curve, guesses: Guesses) -> Membership:
        """From an attack's ROC."""
        points = list(zip(curve.fpr.tolist(), curve.tpr.tolist(), strict=True))
        few = points[:: max(1, len(points) // _MOST_POINTS)]
        roc = tuple(few if few[-1] == points[-1] else [*few, points[-1]])
        return cls(attack, curve.members, curve.others, curve.auc, tuple(map(curve.at, LOW)), guesses, roc)


@dataclass(frozen=True)
class Reconstruction:
    """What gradient inversion made of updates: means over ``examples``. ``psnr`` in dB, higher is closer."""

    given: str
    mse: float
    psnr: float
    examples: int


@dataclass(frozen=True)
class Release:
    """The run's own noise, tried with canaries: what one use of it claims, and what was proven of it."""

    mechanism: str
    claimed: float
    proven: float
    delta: float
    trials: int
    confidence: float

    @property
    def broken(self) -> bool:
        """It does not keep its claim."""
        return self.proven > self.claimed


@dataclass(frozen=True)
class Findings:
    """``audit.json``. ``skipped``: attacks that this run leaves no way for, with the reason."""

    name: str
    task: str
    seed: int
    shadows: int
    claim: Claim | None
    membership: Sequence[Membership] = ()
    inversion: Sequence[Reconstruction] = ()
    releases: Sequence[Release] = ()
    skipped: Sequence[str] = ()

    @property
    def proven(self) -> float:
        """The greatest epsilon that membership inference proved; 0.0 where none was tried."""
        return max((m.guesses.epsilon for m in self.membership), default=0.0)

    def write(self, run: Path) -> Path:
        """Write ``audit.json`` into a run's directory; its path."""
        path = run / AUDIT_FILE
        path.write_bytes(_FINDINGS.dump_json(self, indent=2) + b"\n")
        return path

    @classmethod
    def read(cls, run: Path) -> Findings | None:
        """Of a run's directory; None where no audit was made. Raises DataError."""
        path = run / AUDIT_FILE
        if not path.exists():
            return None
        try:
            return _FINDINGS.validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"Expected an audit in '{path}'. {first_fault(error)}") from error


_FINDINGS: Final = TypeAdapter(Findings)


def faults(findings: Findings, limits: Audit) -> list[str]:
    """What keeps an audit from passing, a line each; none if it passes."""
    found = [
        f"{m.attack} reaches an AUC of {m.auc.value:.3f}, more than {limits.max_auc:g} (audit.max_auc)"
        for m in findings.membership
        if 0 < limits.max_auc < m.auc.value
    ]
    proven, claim = findings.proven, findings.claim
    if 0 < limits.max_epsilon < proven:
        found.append(f"epsilon is at least {proven:.2f}, more than {limits.max_epsilon:g} (audit.max_epsilon)")
    if claim is not None and proven > claim.of_example:
        found.append(f"epsilon is at least {proven:.2f}, more than the {claim.of_example:.2f} that the run claims")
    return found + [
        f"{r.mechanism} claims epsilon {r.claimed:.2f}, at least {r.proven:.2f} was proven"
        for r in findings.releases
        if r.broken
    ]


def table(findings: Findings) -> Table:
    """What was found, a row each."""
    out = Table(title=Text(f"audit of {findings.name} ({findings.task})"), title_justify="left")
    for column in ("attack", "result", "epsilon, at least", "claimed"):
        out.add_column(column, overflow="fold")
    claim = findings.claim
    claimed = f"{claim.epsilon:.2f} per {claim.unit}, delta {claim.delta:g}" if claim else "none claimed"
    for m in findings.membership:
        rates = ", ".join(f"TPR {_share(r)} at FPR {100 * at:g} %" for at, r in zip(LOW, m.tpr, strict=True))
        text = (
            f"AUC {m.auc.value:.3f} ({m.auc.low:.3f} to {m.auc.high:.3f}) of {m.members} members and {m.others} others"
        )
        text += f"\n{rates}"
        guesses = f" ({m.guesses.right} of {m.guesses.made} guesses right)" if m.guesses.epsilon else ""
        out.add_row(m.attack, text, f"{m.guesses.epsilon:.2f}{guesses}", claimed)
    for r in findings.inversion:
        out.add_row(f"inversion: {r.given}", f"PSNR {r.psnr:.1f} dB, squared error {r.mse:.4f}", "", "")
    for release in findings.releases:
        text = "broken" if release.broken else "keeps its claim"
        out.add_row(release.mechanism, text, f"{release.proven:.2f}", f"{release.claimed:.2f} per use")
    for reason in findings.skipped:
        out.add_row("skipped", Text(reason), "", "")
    return out


def _share(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})"
