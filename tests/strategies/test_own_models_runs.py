"""Ditto, pFedMe, APFL, Per-FedAvg, FedALA and IFCA in whole runs with the default codecs; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.client.vault import Vault
from fedpress.errors import PlanError
from fedpress.params import Array, content_hash, from_bytes
from fedpress.plan import load
from fedpress.server.events import Event, RoundClosed
from fedpress.server.strategies import build
from fedpress.simulations.engines import simulate
from fedpress.simulations.results import Result

_NAMES = ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias", "head.weight", "head.bias"]


def _of(label: str, names: list[str]) -> list[str]:
    return [f"{label}:{n}" for n in names]


#: Words of the plan, and what stays in a device's vault.
RUNS = {
    "ditto": (["strategy.personal_epochs=2"], _of("ditto", _NAMES)),
    "pfedme": ([], _of("pfedme", _NAMES)),
    "apfl": (["strategy.adaptive=true"], [*_of("local", _NAMES), "apfl:alpha"]),
    "per-fedavg": (["strategy.variant=hf"], []),
    "fedala": ([], [*_of("local", _NAMES[4:]), *_of("weights", _NAMES[4:])]),
    "ifca": (["strategy.clusters=3"], []),
}


class Cut(Exception):
    pass


def vaults(result: Result) -> list[dict[str, Array]]:
    """What each client of a run keeps, read from its vault."""
    found = []
    for place in sorted((result.run_dir / "clients").iterdir()):
        with Vault(place) as vault:
            found.append(dict(vault.kept.personal))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_run_over_the_default_codecs_survives_a_restart_with_what_is_personal(tmp_path: Path, name: str) -> None:
    words, personal = RUNS[name]
    words = ["engine.name=inline", "run.rounds=4", "clients.count=2", f"strategy.name={name}", *words]
    whole = simulate(load(None, [*words, f"run.out={tmp_path / 'whole'}"]))

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 3:
            raise Cut

    plan = load(None, [*words, f"run.out={tmp_path / 'cut'}"])
    with pytest.raises(Cut):
        simulate(plan, cut)
    resumed = simulate(plan, resume=True)
    assert resumed.summary.model == whole.summary.model
    kept, again = vaults(whole), vaults(resumed)
    assert [content_hash(own) for own in kept] == [content_hash(own) for own in again]
    assert [sorted(own) for own in again] == [sorted(personal)] * 2
    assert not personal or content_hash(again[0]) != content_hash(again[1]), "each its own"
    travels = from_bytes((resumed.run_dir / "checkpoints" / "last.safetensors").read_bytes())
    groups = {"ifca": [n for i in range(3) for n in _of(f"cluster{i}", _NAMES)]}
    assert set(travels) == set(groups.get(name, _NAMES))
    s = resumed.summary
    assert None not in (s.accuracy, s.personal_accuracy, s.personal_worst_decile)
    assert s.bytes_up_uncompressed > 15 * s.bytes_up > 0


def test_ditto_pays_for_both_of_its_fits_under_local_privacy(tmp_path: Path) -> None:
    spent = []
    for name in ("fedavg", "ditto"):
        words = ["engine.name=inline", "run.rounds=1", "clients.count=2", f"run.out={tmp_path / name}"]
        words += [f"strategy.name={name}", "privacy.mode=local", "privacy.delta=0.0005"]
        spent.append(simulate(load(None, words)).summary.epsilon or 0.0)
    assert spent[1] > 1.1 * spent[0] > 0


_ALONE = "train.trainer = 'torch' and privacy.mode = 'none'"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ditto", "train.trainer=idle"], ["really trains", "train.trainer = 'torch'"]),
        (["ditto", "strategy.lam=-1"], ["strategy.lam", "-1"]),
        *(([name, "privacy.mode=local"], ["local privacy cannot guard", _ALONE]) for name in ("fedala", "ifca")),
        *(([name, "train.trainer=idle"], ["really trains", "train.trainer = 'torch'"]) for name in list(RUNS)[1:5]),
        (["ifca", "train.trainer=idle"], [_ALONE]),
        *(
            ([name, word], ["plain SGD", remedy])
            for name in ("pfedme", "apfl", "per-fedavg")
            for word, remedy in (
                ("train.optimizer=adam", "train.optimizer = 'sgd'"),
                ("train.momentum=0.9", "train.momentum = 0"),
            )
        ),
        *(([name, "train.max_grad_norm=1"], ["train.max_grad_norm = 0"]) for name in ("pfedme", "apfl", "per-fedavg")),
        (["pfedme", "strategy.lam=15"], ["eta * lam <= 1", "0.1 * 15", "strategy.eta"]),
        (["pfedme", "strategy.inner=0"], ["strategy.inner", "0"]),
        (["apfl", "strategy.alpha=1.5"], ["strategy.alpha", "1.5"]),
        (["per-fedavg", "strategy.variant=full"], ["strategy.variant", "'fo' or 'hf'"]),
        (["fedala", "strategy.sample=0"], ["strategy.sample", "0"]),
        (["ifca", "strategy.clusters=17"], ["strategy.clusters", "16"]),
        (["ifca", "strategy.lam=1"], ["no option 'lam'", "ditto, pfedme"]),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_reason_and_remedy(words: list[str], expected: list[str]) -> None:
    with pytest.raises(PlanError) as refusal:
        build(load(None, [f"strategy.name={words[0]}", *words[1:]]))
    for text in expected:
        assert text in str(refusal.value)
