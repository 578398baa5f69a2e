"""Server and devices hold the same model to the bit, whatever a device missed; anything else is a DecodeError."""

from __future__ import annotations

import numpy as np
import pytest

from fedpress.compression.download import Link, Publisher, Step, rebuild, recipe, snapshot
from fedpress.compression.registry import parse
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Spec, Tensors, TensorSpec, content_hash, flatten, unflatten

SPEC = Spec((TensorSpec("w", (8, 25)), TensorSpec("b", (8,))))
CODECS = (
    "raw",
    "bf16",
    "int8",
    "int8:per=channel",
    "int4:stochastic=true",
    "topk:0.2+int8",
    "randomk:0.5+int8",
    "sign",
)


def models(count: int) -> list[Tensors]:
    """A walk through parameter space that slows down, as training does."""
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((count, SPEC.size)) / np.arange(1, count + 1)[:, None]
    return [unflatten(vector.astype(np.float32), SPEC) for vector in np.cumsum(steps, axis=0)]


def published(codec: str, mode: str = "delta", count: int = 8) -> list[Step]:
    publisher = Publisher(parse(codec), mode, SPEC)  # type: ignore[arg-type]
    steps: list[Step] = []
    for version, exact in enumerate(models(count)):
        seen, name = (steps[-1].seen, steps[-1].link.hash) if steps else (None, "")
        steps.append(publisher.publish(exact, seen, name, version))
    return steps


def blobs(steps: list[Step], links: list[Link]) -> list[tuple[str, bool, bytes]]:
    payloads = {step.link: step.payload for step in steps}
    return [(link.codec, link.full, payloads.get(link) or snapshot(steps[-1].seen)) for link in links]


@pytest.mark.parametrize(
    ("codec", "mode"), [(c, "delta") for c in CODECS] + [(c, "full") for c in CODECS if "+" not in c]
)
def test_every_device_arrives(codec: str, mode: str) -> None:
    """One that took every version, one that missed some, one that is new: all hold what the server says they see."""
    steps = published(codec, mode)
    faithful: Tensors | None = None
    before = ""
    for now in range(len(steps)):
        known = steps[: now + 1]
        goal = known[-1]
        last = [(goal.link.codec, goal.link.full, goal.payload)]
        faithful, before = rebuild(faithful, before, last, SPEC, goal.link.hash), goal.link.hash
        for then in [None, *range(now + 1)]:
            base = None if then is None else steps[then].seen
            held = "" if then is None else steps[then].link.hash
            links = recipe([s.link for s in known], held, SPEC)
            arrived = rebuild(base, held, blobs(known, links), SPEC, goal.link.hash)
            assert content_hash(arrived) == content_hash(faithful) == content_hash(goal.seen) == goal.link.hash
            assert all(a.flags.writeable for a in arrived.values() if links)


def test_what_a_delta_loses_the_next_one_carries() -> None:
    """The seen model is off by one coding error, not by the sum of all."""
    for codec in ("int8", "int4:stochastic=true"):
        steps, exact = published(codec, count=60), models(60)
        errors = [np.linalg.norm(flatten(s.seen) - flatten(x)) for s, x in zip(steps, exact, strict=True)]
        assert errors[-1] < 0.1 * errors[0]


def test_the_same_models_give_the_same_bytes() -> None:
    assert [s.payload for s in published("int4:stochastic=true")] == [
        s.payload for s in published("int4:stochastic=true")
    ]


def test_the_first_version_is_not_sparse() -> None:
    steps = published("topk:0.05+int8")
    assert [s.link.codec for s in steps[:2]] == ["uniform:8", "topk:0.05+uniform:8"]
    assert np.count_nonzero(flatten(steps[0].seen)) > 0.9 * SPEC.size
    assert all(s.link.bytes == len(s.payload) for s in steps)


def link(base: str, new: str, size: int, full: bool = False) -> Link:
    return Link("int8", full, base, new, size)


def test_the_recipe_is_the_cheapest_way() -> None:
    first, *deltas = [link("", "a", 250, True), link("a", "b", 210), link("b", "c", 210), link("c", "d", 210)]
    history = [first, *deltas]
    spec = Spec((TensorSpec("x", (200,)),))  # a snapshot is 800 bytes
    resort = [Link("raw", True, "", "d", 800)]
    assert recipe(history, "d", spec) == []
    assert recipe(history, "c", spec) == deltas[2:]
    assert recipe(history, "a", spec) == deltas
    assert recipe(history, "", spec) == resort, "880 bytes of payloads against 800"
    assert recipe(history[:3], "", spec) == history[:3], "670 bytes against 800"
    assert recipe(history, "unknown", spec) == resort
    assert recipe(history[2:], "a", spec) == resort, "the history has lost its beginning"
    assert recipe([first, deltas[2]], "", spec) == resort, "the history has a hole"
    assert recipe([*history, link("", "e", 250, True)], "c", spec) == [link("", "e", 250, True)]


def test_another_base_is_noticed() -> None:
    steps = published("int8")
    wrong = {n: a + np.float32(1e-3) for n, a in steps[2].seen.items()}
    last, name = steps[3], steps[2].link.hash
    with pytest.raises(DecodeError, match="snapshot"):
        rebuild(wrong, name, [(last.link.codec, False, last.payload)], SPEC, last.link.hash)
    with pytest.raises(DecodeError, match="holds no model"):
        rebuild(None, "", [(last.link.codec, False, last.payload)], SPEC, last.link.hash)
    with pytest.raises(DecodeError, match="rebuilt nothing"):
        rebuild(None, "", [], SPEC, last.link.hash)
    with pytest.raises(DecodeError, match="base model"):
        rebuild({"w": wrong["w"]}, name, [(last.link.codec, False, last.payload)], SPEC, last.link.hash)


def test_damaged_blobs_are_refused() -> None:
    steps = published("int8")
    last = steps[3]
    huge = np.full(SPEC.size, 3e38, "<f4").tobytes()
    for codec, payload in (
        ("no-such-codec", last.payload),
        (last.link.codec, last.payload[:-1]),
        (last.link.codec, bytes([last.payload[0] ^ 1]) + last.payload[1:]),
        ("raw", huge),
    ):
        base = {n: np.full_like(a, 3e38) for n, a in zip(SPEC.names, steps[2].seen.values(), strict=True)}
        for held in (steps[2].seen, base):
            with pytest.raises(DecodeError):
                rebuild(held, steps[2].link.hash, [(codec, False, payload)], SPEC, last.link.hash)


def test_codecs_that_cannot_serve_downloads() -> None:
    with pytest.raises(CodecError, match="without memory, got 'ef"):
        Publisher(parse("ef+int8"), "delta", SPEC)
    with pytest.raises(CodecError, match="one stage for whole models"):
        Publisher(parse("topk:0.1+int8"), "full", SPEC)


def test_a_model_that_diverged_is_not_published() -> None:
    publisher = Publisher(parse("int8"), "delta", SPEC)
    with pytest.raises(SpecError, match="finite"):
        publisher.publish(unflatten(np.full(SPEC.size, np.nan, np.float32), SPEC), None, "", 0)
    with pytest.raises(SpecError, match="the model to publish"):
        publisher.publish({"w": np.zeros((8, 25), np.float32)}, None, "", 0)
