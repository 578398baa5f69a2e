"""``fedpress audit`` on real runs: one that learned its few members by heart, and two that were private."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpress import plan as plans
from fedpress.cli import app
from fedpress.errors import DataError, FedpressError, PlanError, PrivacyError
from fedpress.plan import load
from fedpress.privacy.audit.epsilon import Guesses
from fedpress.privacy.audit.roc import Rate
from fedpress.sections import Audit
from fedpress.simulations.audit.findings import AUDIT_FILE, Claim, Findings, Membership, Release, faults
from fedpress.simulations.results import Summary

TASK = '''
"""Eighty digits that are nearly lost in noise to learn from; as noisy ones for the test."""
import numpy as np
from fedpress.simulations.tasks import digits
from fedpress.task import Data, Split

model = digits.model

def data(directory):
    rng = np.random.default_rng(0)
    def noisy(split):
        return Split((split.x + rng.normal(0, 0.5, split.x.shape)).astype(np.float32), split.y)
    whole = digits.data(directory)
    return Data(noisy(whole.train.take(rng.permutation(len(whole.train))[:80])), noisy(whole.test))
'''
CENTRAL = (
    *("run.name=central", "run.rounds=3", "clients.count=8", "clients.partition=iid", "clients.holdout=0"),
    *("privacy.mode=central", "privacy.noise_multiplier=1.5", "strategy.weighting=uniform"),
)
QUIET = ("engine.name=inline", "evaluate.server_every=0", "evaluate.clients_every=0", "clients.count=4")
OVERFITTED = (
    *("run.name=heart", "run.rounds=8", "train.epochs=15", "clients.partition=iid", "clients.holdout=0"),
    *("upload.codec=ef:0.9+predict:0.5+nmse:0.5", "download.codec=nmse:0.5,ladder=true"),
)
PRIVATE = (
    *("run.name=private", "run.rounds=2", "train.epochs=2", "clients.partition=iid", "clients.holdout=0"),
    *("privacy.mode=local", "privacy.noise_multiplier=3"),
)


def fedpress(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs."""
    place = tmp_path_factory.mktemp("runs")
    (place / "few.py").write_text(TASK)
    for keys in (OVERFITTED, PRIVATE, CENTRAL):
        fedpress("simulate", place / "few.py", *QUIET, f"run.out={place}", *keys, "-q")
    return place


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / run.name))


def found(run: Path) -> Findings:
    findings = Findings.read(run)
    assert findings is not None
    return findings


def attack(run: Path, *words: str) -> Findings:
    fedpress("audit", run, *words)
    return found(run)


def test_what_was_learned_by_heart_is_found(runs: Path, tmp_path: Path) -> None:
    run = copy(runs / "heart", tmp_path)
    output = fedpress("audit", run, "--attack", "loss", "--attack", "lira", "--shadows", "4")
    loss, ratio = found(run).membership
    assert loss.auc.low > 0.75
    assert ratio.auc.low > 0.7
    assert loss.members == ratio.members == 80
    assert loss.others == 355
    assert found(run).proven > 0.8
    assert found(run).claim is None
    assert "none claimed" in output
    assert (run / "audit.png").stat().st_size > 1000
    assert "Who was in the training data?" in (run / "report.html").read_text()


def test_a_private_run_gives_nobody_away_and_keeps_its_claim(runs: Path, tmp_path: Path) -> None:
    findings = attack(copy(runs / "private", tmp_path), "--shadows", "0", "--attack", "loss", "--attack", "mechanism")
    (loss,), (release,) = findings.membership, findings.releases
    assert loss.auc.low < 0.55
    assert findings.claim is not None
    assert findings.claim.unit == "example"
    assert findings.proven <= findings.claim.epsilon
    assert 0 < release.proven <= release.claimed
    assert faults(findings, Audit(max_auc=0.65)) == []


def test_a_round_of_central_privacy_keeps_its_claim(runs: Path, tmp_path: Path) -> None:
    ledger = (runs / "central" / "ledger.sqlite").read_bytes()
    findings = attack(copy(runs / "central", tmp_path), "--attack", "mechanism", "--attack", "lira", "--shadows", "2")
    (release,) = findings.releases
    assert 0.5 * release.claimed < release.proven <= release.claimed
    assert findings.claim is not None
    assert findings.claim.unit == "client"
    assert findings.claim.of_example == 2 * findings.claim.epsilon
    assert faults(findings, Audit()) == []
    assert (tmp_path / "central" / "ledger.sqlite").read_bytes() == ledger  # an audit spends nobody's budget


def test_noise_that_cannot_be_tried_is_said(runs: Path, tmp_path: Path) -> None:
    run = copy(runs / "private", tmp_path)
    (run / "plan.toml").write_text(plans.to_toml(load(run / "plan.toml", ["train.trainer=numpy"])))
    assert "trained with numpy" in attack(run, "--attack", "mechanism").skipped[0]
    assert "adds no noise" in attack(copy(runs / "heart", tmp_path), "--attack", "mechanism").skipped[0]


def test_compression_hides_some_and_feedback_sends_it_after_all(runs: Path, tmp_path: Path) -> None:
    findings = attack(copy(runs / "heart", tmp_path), "--attack", "inversion")
    bare, upload, mean, guess, random = (r.psnr for r in findings.inversion)
    assert bare > upload > random
    assert bare > guess
    assert mean > upload


def test_the_same_seed_finds_the_same(runs: Path, tmp_path: Path) -> None:
    run = copy(runs / "heart", tmp_path)
    five, again = (attack(run, "--attack", "lira", "--shadows", "2", "--seed", seed) for seed in "55")
    six = attack(run, "--attack", "loss", "--seed", "6")
    assert five == again
    assert (five.seed, six.seed) == (5, 6)


def test_the_gate_fails_with_what_was_found(runs: Path, tmp_path: Path) -> None:
    run = copy(runs / "heart", tmp_path)
    fedpress("audit", run, "--attack", "loss", "--gate", "--max-auc", "0.999")
    with pytest.raises(PrivacyError, match=r"loss threshold reaches an AUC of 0\.\d+, more than 0.6"):
        fedpress("audit", run, "--attack", "loss", "--gate", "--max-auc", "0.6")
    with pytest.raises(PrivacyError, match=r"epsilon is at least .* more than 0\.1"):
        fedpress("audit", run, "--attack", "loss", "--gate", "--max-epsilon", "0.1")


def test_a_simulation_with_a_gate_is_audited(runs: Path, tmp_path: Path) -> None:
    limits = ("audit.gate=true", "audit.max_auc=0.6", "audit.shadows=0")
    with pytest.raises(PrivacyError, match="The audit does not pass: loss threshold reaches"):
        fedpress("simulate", runs / "few.py", *QUIET, f"run.out={tmp_path}", *OVERFITTED, "run.rounds=3", *limits, "-q")
    assert json.loads((tmp_path / "heart" / AUDIT_FILE).read_text())["membership"]


def test_faults_are_told_apart() -> None:
    rate = Rate(0.5, 0.4, 0.6)
    one = Membership("loss threshold", 9, 9, rate, (rate, rate), Guesses(3.0, 9, 9, 18, 1e-5, 0.95), ((0, 0), (1, 1)))
    findings = Findings("run", "digits", 0, 0, Claim(2.0, 1e-5, "example", 2.0), [one])
    assert len(faults(findings, Audit())) == 1
    assert "the 2.00 that the run claims" in faults(findings, Audit())[0]
    # Of a client's epsilon an example can prove twice as much: one client goes, another comes.
    assert faults(replace(findings, claim=Claim(2.0, 1e-5, "client", 4.0)), Audit()) == []
    broken = Release("a step of DP-SGD", 1.0, 2.0, 1e-5, 100, 0.99)
    assert "at least 2.00 was proven" in faults(replace(findings, membership=[], releases=[broken]), Audit())[0]


def refused(error: type[FedpressError], match: str, run: Path, *words: str) -> None:
    with pytest.raises(error, match=match):
        fedpress("audit", run, *words)


def test_runs_that_cannot_be_audited_are_refused(runs: Path, tmp_path: Path) -> None:
    refused(DataError, "Expected a finished run", tmp_path / "nowhere")
    run = copy(runs / "heart", tmp_path)
    refused(PlanError, "Unknown attack 'los'", run, "--attack", "los")
    refused(PlanError, "even number of shadow models, got 3", run, "--shadows", "3")
    replace(Summary.read(run), engine="server").write(run)
    refused(DataError, "are on devices", run)
    run = copy(runs / "private", tmp_path)
    (run / "checkpoints" / "last.safetensors").unlink()
    refused(DataError, "Expected the run's last model", run)
    personal = ("strategy.name=fedper", 'strategy.personal=["head.*"]')
    (run / "plan.toml").write_text(plans.to_toml(load(run / "plan.toml", personal)))
    (run / "checkpoints" / "last.safetensors").touch()
    refused(PlanError, "personalized", run)
    (run / AUDIT_FILE).write_text("{}")
    with pytest.raises(DataError, match="Expected an audit"):
        Findings.read(run)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (["audit.gate=true"], "claims nothing that it could be held to"),
        (["audit.shadows=3"], "even number"),
        (["audit.max_auc=1.5"], "less than or equal to 1"),
    ],
)
def test_plans_that_make_no_gate_are_refused(keys: Sequence[str], match: str) -> None:
    with pytest.raises(PlanError, match=match):
        load(None, keys)


def test_a_server_cannot_audit() -> None:
    with pytest.raises(PlanError, match="on devices"):
        fedpress("server", "digits", "audit.gate=true", "audit.max_auc=0.6")


def test_help_teaches() -> None:
    text = fedpress("audit", "--help")
    assert "Example" in text
    assert "--shadows" in text
