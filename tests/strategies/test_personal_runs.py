"""The personalised strategies in whole runs with the default codecs, cut in the middle; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpress.client.learner import Learner
from fedpress.client.rules import rule
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.client.vault import Vault
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError, SpecError
from fedpress.params import Array, Spec, content_hash, from_bytes
from fedpress.plan import load
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.events import Event, RoundClosed
from fedpress.server.strategies import build
from fedpress.simulations.engines import simulate
from fedpress.simulations.problem import Problem
from fedpress.simulations.report import write_report
from fedpress.simulations.results import Result

_TASK = """
from pathlib import Path
import torch
from fedpress.simulations.tasks import digits
data = digits.data
def model():
    return torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.LayerNorm(16),
        torch.nn.Linear(16, 10))
"""
#: With a buffer of its own, under a name that torch does not give.
_SCALED = (
    _TASK.replace("torch.nn.Linear(16, 10)", "torch.nn.Linear(16, 10), Scaled()")
    + """
class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("unit", torch.ones(()))
    def forward(self, x):
        return self.unit * x
"""
)
_OF_FEDBN = [f"1.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
_HEAD, _BODY = ["head.weight", "head.bias"], ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]
#: Words of the plan, and the tensors that never leave the device but stay in its vault.
RUNS = {
    "fedper": (['strategy.personal=["head.*"]'], _HEAD),
    "fedrep": (['strategy.personal=["head.*"]', "strategy.head_epochs=2"], _HEAD),
    "lg-fedavg": (['strategy.personal=["body.*"]'], _BODY),
    "fedbn": (['strategy.personal=["3.*"]'], [*_OF_FEDBN, "3.weight", "3.bias"]),
    "fedbabu": (['strategy.personal=["head.*"]', "strategy.fine_tune_epochs=1"], []),
    "finetune": (["strategy.fine_tune_epochs=1"], []),
    "local": ([], [*_BODY, *_HEAD]),
}


class Cut(Exception):
    pass


@pytest.mark.parametrize("name", RUNS)
def test_a_run_over_the_default_codecs_survives_a_restart_with_what_is_personal(tmp_path: Path, name: str) -> None:
    words, personal = RUNS[name]
    (tmp_path / "normal.py").write_text(_TASK)
    task = tmp_path / "normal.py" if name == "fedbn" else "digits"
    words = [
        f"task.name={task}", "engine.name=inline", "run.rounds=3", "clients.count=2", f"strategy.name={name}", *words
    ]  # fmt: skip
    whole = simulate(load(None, [*words, f"run.out={tmp_path / 'whole'}"]))

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 2:
            raise Cut

    plan = load(None, [*words, f"run.out={tmp_path / 'cut'}"])
    with pytest.raises(Cut):
        simulate(plan, cut)
    resumed = simulate(plan, resume=True)
    assert resumed.summary.model == whole.summary.model
    kept, again = vaults(whole), vaults(resumed)
    assert {n: content_hash(own) for n, own in kept.items()} == {n: content_hash(own) for n, own in again.items()}
    assert [list(own) for own in again.values()] == [personal] * 2
    one, other = again.values()
    assert all(not np.array_equal(one[n], other[n]) for n in personal[:1]), "each its own"
    travels = from_bytes((resumed.run_dir / "checkpoints" / "last.safetensors").read_bytes())
    assert not set(travels) & set(personal)
    s = resumed.summary
    assert (s.bytes_up == 0) == (s.bytes_down == 0) == (s.parameters == 0) == (name == "local")
    assert None not in (s.accuracy, s.personal_accuracy, s.personal_deviation, s.personal_worst_decile)
    assert resumed.rounds[-1].client_accuracy is not None
    assert resumed.rounds[-1].client_accuracy.mean == pytest.approx(s.personal_accuracy)
    assert write_report(resumed.run_dir).exists()


def vaults(result: Result) -> dict[str, dict[str, Array]]:
    """What each client of a run keeps, read from its vault."""
    found = {}
    for place in sorted((result.run_dir / "clients").iterdir()):
        with Vault(place) as vault:
            found[place.name] = dict(vault.kept.personal)
    return found


def test_fedrep_pays_for_both_of_its_fits_under_local_privacy(tmp_path: Path) -> None:
    spent = []
    for name, more in (("fedper", []), ("fedrep", ["strategy.head_epochs=1"])):
        words = ["engine.name=inline", "run.rounds=1", "clients.count=2", f"run.out={tmp_path / name}", *more]
        words += [f"strategy.name={name}", 'strategy.personal=["head.*"]', "privacy.mode=local", "privacy.delta=0.0005"]
        spent.append(simulate(load(None, words)).summary.epsilon or 0.0)
    assert spent[1] > 1.1 * spent[0] > 0


def test_fine_tuning_under_local_privacy_is_paid_for_and_reported(tmp_path: Path) -> None:
    words = ["engine.name=inline", "run.rounds=1", "clients.count=2", "privacy.mode=local", "privacy.delta=0.0005"]
    words += ["strategy.name=finetune", "strategy.fine_tune_epochs=1", f"run.out={tmp_path}"]
    _, training, evaluation = simulate(load(None, words)).rounds
    for name, client in training.clients.items():
        assert evaluation.clients[name].epsilon > client.epsilon > 0


# -- refusals ---------------------------------------------------------------------------------------------------------

SPEC = Spec.of({n: np.zeros(1, np.float32) for n in (*_BODY, *_HEAD)})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fedrep"], ["strategy.personal", "got none"]),
        (["fedrep", 'strategy.personal=["head.*"]', "strategy.head_epochs=0"], ["strategy.head_epochs", "0"]),
        (["fedrep", 'strategy.personal=["head.*"]', "train.trainer=idle"], ["really trains", "train.trainer"]),
        (["fedrep", 'strategy.personal=["*"]'], ["match all 6", "'local'"]),
        (["lg-fedavg", 'strategy.personal=["bodi.*"]'], ["bodi.*", *SPEC.names]),
        (["fedbabu", 'strategy.personal=["head.*"]', "strategy.fine_tune_epochs=-1"], ["strategy.fine_tune_epochs"]),
        (["finetune", 'strategy.personal=["head.*"]'], ["no option 'personal'", "fedper"]),
        (["local", "strategy.head_epochs=1"], ["no option 'head_epochs'", "fedrep"]),
        (["fedbn"], ["running statistics", "LayerNorm", *SPEC.names]),
        (["fedbn", 'strategy.personal=["norm.*"]'], ["norm.*", *SPEC.names]),
        (["fedbn", 'strategy.personal=["*"]'], ["match all 6"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_with_what_there_is(words: list[str], expected: list[str]) -> None:
    with pytest.raises((PlanError, SpecError)) as refusal:
        build(load(None, [f"strategy.name={words[0]}", *words[1:]])).layout(SPEC)
    for text in expected:
        assert text in str(refusal.value)


def test_fedbn_finds_layers_by_their_statistics_wherever_they_are() -> None:
    names = ["a.bn.weight", "a.bn.bias", "a.bn.running_mean", "a.bn.running_var", "a.bn.sub.weight", "a.bnx.weight"]
    strategy = build(load(None, ["strategy.name=fedbn"]))
    spec = Spec.of({n: np.zeros(1, np.float32) for n in names})
    assert [p.name for p in strategy.layout(spec)] == ["a.bn.sub.weight", "a.bnx.weight"]
    assert list(strategy.rule(spec).personal) == names[:4]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fedrep", 'strategy.personal=["*.running_*", "5.unit"]'], "1.running_mean, 1.running_var, 5.unit"),
        (["fedrep", 'strategy.personal=["*.weight", "*.bias"]'], "1.running_mean, 1.running_var, 5.unit"),
        (["fedbabu", 'strategy.personal=["[0-4].*"]'], "5.unit"),
    ],
    ids=" ".join,
)
def test_what_is_trained_by_itself_has_more_than_buffers_or_the_plan_is_refused(
    tmp_path: Path, words: list[str], named: str
) -> None:
    (tmp_path / "scaled.py").write_text(_SCALED)
    task = f"task.name={tmp_path / 'scaled.py'}"
    with pytest.raises(PlanError) as refusal:
        _ = Problem(load(None, [task, f"strategy.name={words[0]}", *words[1:]])).initial
    for text in (
        f"'{words[0]}'",
        f"only buffers and frozen tensors: {named} (strategy.personal)",
        "changes 0.weight, 0.bias, 1.weight, ",
    ):
        assert text in str(refusal.value)
    _ = Problem(load(None, [task, "strategy.name=fedper", words[1]])).initial  # all is trained at once: nothing amiss


def test_a_head_of_buffers_only_cannot_be_trained_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "normal.py").write_text(_TASK)
    problem = Problem(load(None, [f"task.name={tmp_path / 'normal.py'}", "clients.count=2"]))
    trainer = problem.trainer(0)
    assert isinstance(trainer, TorchTrainer)
    said = pb.Rule(name="fedrep", personal=["1.running_mean"], options={"head_epochs": 1})
    training = pb.Training(epochs=1, batch_size=32, optimizer="sgd", lr=0.1)
    with pytest.raises(PlanError, match=r"only buffers: 1\.running_mean"):
        rule(said).train(trainer.initial(0), {}, Learner(trainer, training, Stream(0), 0))
