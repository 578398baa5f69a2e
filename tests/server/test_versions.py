"""Downloads as the server keeps them: whatever version a device holds, it arrives, and at the least cost known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fedpress.compression.download import origin, rebuild
from fedpress.errors import StoreError
from fedpress.params import Spec, Tensors, TensorSpec, content_hash, unflatten
from fedpress.plan import load
from fedpress.server.store import Store
from fedpress.server.versions import Versions

SPEC = Spec((TensorSpec("w", (40, 50)), TensorSpec("b", (40,))))
LATTICE = "ecsq:3,ladder=true"


def models(count: int, seed: int = 0, slows: bool = True) -> list[Tensors]:
    """A walk with heavy tails that slows down, as training has; biases begin at zero."""
    rng = np.random.default_rng(seed)
    steps = 0.1 * rng.laplace(size=(count, SPEC.size)) / np.arange(1, count + 1)[:, None] ** slows
    steps[0, -40:] = 0
    return [unflatten(vector.astype(np.float32), SPEC) for vector in np.cumsum(steps, axis=0)]


class Run:
    """Versions on a store of their own, published one by one, and every model devices saw, by hash."""

    def __init__(self, path: Path, codec: str = LATTICE, mode: str = "delta", history: int = 20) -> None:
        self.plan = load(None, [f"download.codec={codec}", f"download.mode={mode}", f"download.history={history}"])
        self.store = Store(path / "store.sqlite", durable=False)
        self.versions = Versions(self.plan, SPEC, self.store)
        self.walk = models(40)
        self.held: list[tuple[str, Tensors]] = []

    def publish(self, count: int = 1) -> None:
        """Further versions, fetched by a device that misses none."""
        for _ in range(count):
            number = len(self.held)
            with self.store.transaction():
                self.versions.publish(self.walk[number], {}, number)
            name, model = self.held[-1] if self.held else self.first()
            self.held.append((self.versions.hash, self.arrive(name, model)))

    def first(self) -> tuple[str, Tensors]:
        """What a device makes for itself."""
        made = origin(self.walk[0], Spec.of(self.walk[0]))
        return content_hash(made), made

    def arrive(self, name: str, model: Tensors | None) -> Tensors:
        """The newest version, as a device makes it that holds ``model``."""
        recipe = self.versions.recipe(name)
        blobs = []
        for blob in recipe:
            data = self.versions.blob(blob.hash.hex())
            assert data is not None
            assert hashlib.sha256(data).digest() == blob.hash
            assert len(data) == blob.size
            blobs.append((blob.codec, blob.full, data))
        made = rebuild(model, name, blobs, SPEC, self.versions.hash)
        if recipe and recipe[-1].step:
            assert made.change is not None
            assert self.versions.step is not None
            assert content_hash(made.change) == content_hash(self.versions.step)
        return made.model

    def cost(self, name: str) -> int:
        return sum(blob.size for blob in self.versions.recipe(name))

    def restart(self) -> None:
        self.versions = Versions(self.plan, SPEC, self.store)
        self.versions.restore()


@pytest.mark.parametrize("codec", [LATTICE, "ecsq:2", "int8", "topk:0.1+int8", "bf16"])
@pytest.mark.parametrize("history", [1, 7])
def test_whatever_a_device_holds_it_arrives_also_after_a_restart(tmp_path: Path, codec: str, history: int) -> None:
    run = Run(tmp_path, codec, history=history)
    stranger = models(1, seed=1)[0]
    for again in range(13):
        run.publish()
        if again % 3 == 2:
            step = run.versions.step
            run.restart()
            assert (step is None) == (run.versions.step is None)
            assert step is None or content_hash(step) == content_hash(run.versions.step or {})
        for name, model in [*run.held, run.first(), (content_hash(stranger), stranger), ("", None)]:
            assert content_hash(run.arrive(name, model)) == run.versions.hash


def test_the_first_version_costs_nothing_and_a_stranger_gets_a_whole_model(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.publish()
    assert run.versions.recipe(run.first()[0]) == []
    assert run.versions.step is None
    for held in ("", "f" * 64):
        (blob,) = run.versions.recipe(held)
        assert (blob.full, blob.size, blob.step) == (True, SPEC.nbytes, False)


def test_who_missed_versions_pays_less_than_for_all_of_them(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.publish(1)
    costs = []
    for _ in range(8):
        run.publish(1)
        (step,) = run.versions.recipe(run.held[-2][0])
        assert step.step
        costs.append(step.size)
    for missed in range(2, 8):
        (joint,) = run.versions.recipe(run.held[-1 - missed][0])
        assert not joint.step
        assert not joint.full
        assert joint.size < sum(costs[-missed:])
        assert joint.size < SPEC.nbytes / 8


def test_what_the_history_has_lost_is_reached_from_the_first_version(tmp_path: Path) -> None:
    run = Run(tmp_path, history=3)
    run.publish(12)
    assert run.cost(run.held[5][0]) == SPEC.nbytes
    assert run.cost(run.first()[0]) < SPEC.nbytes / 6


def test_direct_deltas_are_kept_within_a_models_bytes_and_any_offered_one_can_be_fetched(tmp_path: Path) -> None:
    run = Run(tmp_path, history=39)
    run.walk = models(40, slows=False)
    run.publish(36)
    kept = run.versions._direct
    offered = {blob.hash.hex(): blob.size for name, _ in run.held for blob in run.versions.recipe(name)}
    assert sum(offered.values()) > SPEC.nbytes > sum(v.link.bytes for v in kept.values() if v)
    for name, size in offered.items():
        data = run.versions.blob(name)
        assert data is not None
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (name, size)
    known = set(kept)
    for i in range(50):
        run.versions.recipe(f"{i:064x}")
    assert set(kept) == known, "who makes names up costs the others nothing"
    run.publish()
    assert not kept


def test_a_weight_beyond_exact_sums_costs_bytes_and_never_a_wrong_model(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for i, model in enumerate(run.walk[1:], 1):
        model["w"][0, 0] = 2.0**12 if i > 5 else 0.1
    run.publish(12)
    assert len(run.versions.recipe(run.held[4][0])) == 7, "no direct one from before"
    assert len(run.versions.recipe(run.held[9][0])) == 1
    for name, model in run.held:
        assert content_hash(run.arrive(name, model)) == run.versions.hash


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_earlier_versions_are_known_as_long_as_the_history_says(tmp_path: Path, again: bool) -> None:
    run = Run(tmp_path, history=6)
    steps = []
    for _ in range(10):
        run.publish()
        steps.append(run.versions.step)
    if again:
        run.restart()
    versions = run.versions
    assert [n for n in range(12) if versions.hash_at(n)] == list(range(4, 10))
    for number in range(4, 10):
        name, model = run.held[number]
        assert versions.hash_at(number) == name
        for found, known in ((versions.step_at(number), steps[number]), (versions.seen_at(number), model)):
            assert found is not None
            assert known is not None
            assert content_hash(found) == content_hash(known)
    assert versions.seen_at(3) is None
    with pytest.raises(StoreError, match="version 3 in the history, which begins with 4"):
        versions.step_at(3)


def test_the_first_version_was_seen_and_added_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.publish(3)
    assert run.versions.step_at(0) is None
    assert content_hash(run.versions.seen_at(0) or {}) == run.first()[0]


def test_of_whole_models_the_names_are_kept_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path, "int8", mode="full", history=3)
    run.publish(5)
    assert [run.versions.hash_at(n) for n in (1, 2, 3, 4)] == [None, *(name for name, _ in run.held[2:])]
    assert run.versions.step_at(3) is None
    assert run.versions.seen_at(3) is None
    assert content_hash(run.versions.seen_at(4) or {}) == run.versions.hash


def test_a_version_that_cannot_be_traced_back_is_not_made_up(tmp_path: Path) -> None:
    run = Run(tmp_path, "ecsq:2")
    run.publish(9)
    found = run.versions.seen_at(2)
    assert found is None or content_hash(found) == run.held[2][0]


def test_whole_models_have_no_steps_and_no_first_version(tmp_path: Path) -> None:
    run = Run(tmp_path, "int8", mode="full")
    run.publish(3)
    assert run.versions.step is None
    (blob,) = run.versions.recipe(run.first()[0])
    assert (blob.full, blob.codec, blob.step) == (True, "uniform:8", False)
