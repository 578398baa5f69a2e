from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.errors import PlanError
from fedpress.plan import Plan, from_table, load, sections, to_toml
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.tickets import local_privacy

REPO = Path(__file__).resolve().parent.parent


def test_a_plan_survives_toml(tmp_path: Path) -> None:
    plan = load(REPO / "simulations" / "demo.toml", ["train.lr=0.25", 'strategy.personal=["head.*"]', "run.name=x"])
    assert (plan.train.lr, plan.strategy.options, plan.run.name) == (0.25, {"personal": ["head.*"]}, "x")
    path = tmp_path / "plan.toml"
    path.write_text(to_toml(plan))
    assert load(path) == plan
    assert load() == Plan()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.lr=nan", "train.lr"),
        ("train.epochs=1.5", "train.epochs"),
        ("train.optimizer=sdg", "train.optimizer"),
        ("cohort.fraction=0", "cohort.fraction"),
        ("cohort.fractoin=1", "Did you mean 'fraction'"),
        ("clints.count=1", "Did you mean 'clients'"),
        ("upload.codec=ef+topk:2+int8", "upload.codec"),
        ("server.cert=x.pem", "server.key together"),
        ("cohort.min_updates=11", "cohort.min_updates"),
        ("cohort.buffer=-1", "cohort.buffer"),
        ("cohort.late=keep", "cohort.late"),
        ("cohort.concurrency=3", "cohort.concurrency = 0 with cohort.buffer = 0"),
        ("run.name=../elsewhere", "run.name"),
        ("lr=1", "section.key=value"),
        ("train.lr", "section.key=value"),
    ],
)
def test_what_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(PlanError) as refusal:
        load(None, [override])
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cohort.buffer=3", "cohort.over_select=1.5"], "cohort.over_select = 1.0 with cohort.buffer > 0"),
        (["cohort.buffer=3", "cohort.late=fold"], "cohort.late = 'drop' with cohort.buffer > 0"),
        (["cohort.buffer=3", "cohort.min_updates=4"], "cohort.min_updates of at most cohort.buffer, got 4"),
        (["cohort.buffer=3", "download.history=10"], r"cohort.max_staleness below download.history \(10\), got 10"),
        (
            ["cohort.late=fold", "cohort.max_staleness=50"],
            r"cohort.max_staleness below download.history \(50\), got 50",
        ),
    ],
)
def test_pacing_that_does_not_go_together_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        load(None, overrides)


def test_updates_may_be_late_only_where_the_plan_says_so() -> None:
    assert load(None, ["cohort.max_staleness=99"]).cohort.patience == 0
    assert load(None, ["cohort.late=fold"]).cohort.patience == load(None, ["cohort.buffer=2"]).cohort.patience == 10
    assert load(None, ["cohort.fraction=0.5"]).concurrency(8) == 4
    assert load(None, ["cohort.buffer=2", "cohort.concurrency=3"]).concurrency(8) == 3


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(PlanError) as refusal:
        from_table({"train": {"lr": -1, "epochs": 0}, "run": {"rounds": "many"}})
    assert len(str(refusal.value).splitlines()) == 3


def test_a_file_that_is_not_toml_or_not_there(tmp_path: Path) -> None:
    broken = tmp_path / "plan.toml"
    broken.write_text("[run\n")
    with pytest.raises(PlanError, match="not TOML"):
        load(broken)
    with pytest.raises(PlanError, match="Cannot read"):
        load(tmp_path / "none.toml")


def test_every_key_is_explained() -> None:
    for name, section in sections().items():
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["privacy.clipping=ghastly"], r"'flat', 'per-layer' or 'ghost'.*privacy\.clipping"),
        (["privacy.epsilon=-1"], r"privacy\.epsilon"),
        (["privacy.delta=1"], r"privacy\.delta"),
        (["privacy.clip_norm=0"], r"privacy\.clip_norm"),
        (["privacy.clip_norm=inf"], r"privacy\.clip_norm"),
        (["privacy.mode=local", "privacy.epsilon=3", "privacy.max_epsilon=5"], "a target is a budget too"),
        (["privacy.mode=local", "privacy.noise_multiplier=0.01"], "an epsilon of more than 90"),
        (["privacy.mode=local", "train.trainer=idle"], "'torch' or 'numpy'"),
        (["train.batch_size=0"], r"train\.batch_size"),
    ],
)
def test_a_privacy_that_means_nothing_is_refused_with_the_reason(words: list[str], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        load(None, words)


def test_local_privacy_goes_with_both_trainers_that_train() -> None:
    for trainer in ("torch", "numpy"):
        load(None, ["privacy.mode=local", f"train.trainer={trainer}", "privacy.epsilon=3"])


def test_a_target_tells_devices_how_much_work_it_is_for_and_no_noise() -> None:
    words = ["privacy.mode=local", "privacy.epsilon=3", "run.rounds=5", "train.epochs=1", "train.epochs_end=3"]
    said = local_privacy(load(None, [*words, "evaluate.clients_every=2"]))
    assert (said.noise_multiplier, said.target_epsilon, said.clipping) == (0.0, 3.0, "")
    assert (said.rounds, said.passes, said.evaluations) == (5, 1 + 2 + 2 + 3 + 3, 3 + 1)
    assert local_privacy(load(None, [*words, "evaluate.clients_every=0"])).evaluations == 0
    plain = local_privacy(load(None, ["privacy.mode=local"]))
    assert plain == pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=1.0, delta=1e-5), "no bytes for what is not said"
