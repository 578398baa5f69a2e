"""What the global strategies remember between rounds, on the server and on devices, survives a restart to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.plan import load
from fedpress.server.events import Event, RoundClosed
from fedpress.simulations.engines import simulate


class Cut(Exception):
    pass


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "moon", "fedavgm", "fedadagrad", "fedyogi"])
def test_a_run_that_was_cut_ends_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    words = ["engine.name=inline", "run.rounds=4", "clients.count=3", "cohort.fraction=0.67", "train.max_steps=3"]
    whole = simulate(load(None, [*words, f"strategy.name={name}", f"run.out={tmp_path / 'whole'}"]))

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 2:
            raise Cut

    plan = load(None, [*words, f"strategy.name={name}", f"run.out={tmp_path / 'cut'}"])
    with pytest.raises(Cut):
        simulate(plan, cut)
    assert simulate(plan, resume=True).summary.model == whole.summary.model
