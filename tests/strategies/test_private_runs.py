"""A target for the whole run, over every strategy that local privacy allows: real devices and their vaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.client.vault import Vault
from fedpress.errors import PlanError
from fedpress.plan import load
from fedpress.privacy.accounting import epsilon
from fedpress.server.strategies import STRATEGIES, build
from fedpress.simulations.engines import simulate

TARGET, DELTA = 4.0, 1e-4
#: Words that a strategy needs beside its name.
WORDS = {
    "fedper": ['strategy.personal=["head.*"]'],
    "fedrep": ['strategy.personal=["head.*"]'],
    "fedbabu": ['strategy.personal=["head.*"]'],
    "lg-fedavg": ['strategy.personal=["body.*"]'],
    "fedbn": ['strategy.personal=["body.0.*"]'],
    "fedbuff": ["cohort.buffer=2"],
    "fedasync": ["cohort.buffer=1"],
    "ditto": ["strategy.personal_epochs=2"],
}
#: Those whose versions come after single updates: each device then takes part in some rounds of the run only.
LOOSE = {"fedasync"}
REFUSED = {"moon", "fedala", "ifca"}


def private(name: str, out: Path, *more: str) -> list[str]:
    return [
        f"strategy.name={name}",
        *WORDS.get(name, []),
        "engine.name=inline",
        "clients.count=2",
        "clients.partition=iid",
        "run.rounds=3",
        "train.trainer=numpy",
        "train.max_steps=3",
        "train.lr=0.01",
        "privacy.mode=local",
        f"privacy.delta={DELTA}",
        f"privacy.epsilon={TARGET}",
        "evaluate.clients_every=3",  # twice with the last model: not as often as there are rounds
        f"run.out={out}",
        *more,
    ]


def spent(out: Path) -> list[float]:
    found = []
    for place in sorted(out.glob("*/clients/*")):
        with Vault(place) as vault:
            found.append(epsilon(vault.history, DELTA))
    return found


def test_what_local_privacy_cannot_hide_is_refused_and_nothing_else(tmp_path: Path) -> None:
    for name in STRATEGIES:
        plan = load(None, private(name, tmp_path))
        if name in REFUSED:
            with pytest.raises(PlanError, match="which local privacy cannot guard"):
                build(plan)
        else:
            assert build(plan).id == name


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - REFUSED))
def test_a_run_spends_its_target_and_no_more(tmp_path: Path, name: str) -> None:
    result = simulate(load(None, private(name, tmp_path)))
    assert result.summary.rounds == 3
    for found in spent(tmp_path):
        assert found <= TARGET
        assert name in LOOSE or found > 0.98 * TARGET


@pytest.mark.parametrize(
    "more",
    [
        ["train.trainer=torch", "strategy.name=apfl"],
        ["train.trainer=torch", "strategy.name=pfedme", "privacy.clipping=ghost"],
        ["train.trainer=torch", "strategy.name=per-fedavg", "strategy.variant=hf", "privacy.clipping=per-layer"],
        ["train.max_steps=0", "train.epochs=1", "train.epochs_end=2", "train.batch_size=128"],
    ],
    ids=["torch", "ghost", "per-layer", "more passes later"],
)
def test_so_it_does_with_the_other_trainer_the_other_clippings_and_a_schedule(tmp_path: Path, more: list[str]) -> None:
    simulate(load(None, private("fedavg", tmp_path, *more)))
    for found in spent(tmp_path):
        assert 0.98 * TARGET < found <= TARGET


def test_a_cohort_spends_less_for_each_device_counts_on_every_round(tmp_path: Path) -> None:
    simulate(load(None, private("fedavg", tmp_path, "cohort.fraction=0.5", "run.rounds=4")))
    assert min(spent(tmp_path)) < 0.9 * TARGET
    assert max(spent(tmp_path)) <= TARGET
