"""An audit's ROC, in a run's report and as ``audit.png``: both axes logarithmic, for it is the low end that counts.

Beside the attacks: guessing at random, and the most that the run's claimed epsilon allows any attack. Needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedpress.privacy.audit.tradeoff import allowed
from fedpress.simulations.audit.findings import Findings
from fedpress.simulations.drawing import PAPER, A, B, C, canvas, save, to_svg
from fedpress.simulations.plots import Key, Plot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

_LEAST: Final = 1e-3
_DASH: Final = (0, (3, 2))
_DOTS: Final = (0, (1, 2))
_SIZE: Final = (560, 460)
_COLOURS: Final = (A, B)
_KEYS: Final = ("a", "b")


def audit_plots(findings: Findings | None) -> list[Plot]:
    """The ROC for a report's page; none where no audit tried membership."""
    if findings is None or not findings.membership:
        return []
    figure, (axes,) = canvas()
    _draw(axes, findings, {colour: colour for colour in (A, B, C)})
    keys = [Key(key, "line", m.attack) for key, m in zip(_KEYS, findings.membership, strict=False)]
    keys.append(Key("c", "dash", "guessing"))
    note = f"Log scales. At least epsilon {findings.proven:.2f} was proven; "
    note += (
        f"claimed: {findings.claim.epsilon:.2f} per {findings.claim.unit}, whose limit is dotted."
        if findings.claim
        else "none is claimed."
    )
    alt = (
        "ROC of membership inference: "
        + ", ".join(f"{m.attack} AUC {m.auc.value:.3f}" for m in findings.membership)
        + "."
    )
    return [Plot("audit", "Who was in the training data?", to_svg(figure, "au"), alt, tuple(keys), note)]


def draw(findings: Findings, run: Path) -> list[Path]:
    """Write ``audit.svg`` and ``audit.png`` into a run's directory; their paths."""
    figure, (axes,) = canvas(size=_SIZE)
    _draw(axes, findings, PAPER)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return save(figure, run / "audit")


def _draw(axes: Axes, findings: Findings, colour: Mapping[str, str]) -> None:
    at = np.geomspace(_LEAST, 1, 200)
    axes.plot(at, at, color=colour[C], linestyle=_DASH, linewidth=1.2, label="guessing")
    if findings.claim:
        limit = allowed(at, findings.claim.of_example, findings.claim.delta)
        axes.plot(
            at,
            limit,
            color=colour[C],
            linestyle=_DOTS,
            label=f"allowed by the claimed epsilon {findings.claim.epsilon:.2f}",
        )
    for m, own in zip(findings.membership, _COLOURS, strict=False):
        fpr, tpr = np.array(m.roc).T
        axes.step(fpr, tpr, where="post", color=colour[own], label=f"{m.attack}, AUC {m.auc.value:.3f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_LEAST, 1)
    axes.set_ylim(_LEAST, 1.05)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
