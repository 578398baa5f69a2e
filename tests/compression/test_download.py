"""Server and devices hold the same model to the bit, whatever a device missed; anything else is a DecodeError."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.download import Link, Publisher, Step, origin, rebuild, recipe, snapshot
from fedpress.compression.ecsq import Ecsq
from fedpress.compression.payload import unseal
from fedpress.compression.registry import parse
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Spec, Tensors, TensorSpec, content_hash, flatten, subtract, unflatten

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
    "ecsq:2",
    "ecsq:2,ladder=true",
)
#: With a group beside the model, whose numbers are of another size.
SEVERAL = Spec((*SPEC, *(TensorSpec(f"control:{t.name}", t.shape) for t in SPEC)))
LADDER = "ecsq:2,ladder=true"


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


def blobs(steps: list[Step], links: list[Link], more: dict[Link, bytes] | None = None) -> list[tuple[str, bool, bytes]]:
    payloads = {step.link: step.payload for step in steps} | (more or {})
    return [(link.codec, link.full, payloads.get(link) or snapshot(steps[-1].seen, SPEC)) for link in links]


@pytest.mark.parametrize(
    ("codec", "mode"),
    [(c, "delta") for c in CODECS] + [(c, "full") for c in CODECS if "+" not in c and "ecsq" not in c],
)
def test_every_device_arrives(codec: str, mode: str) -> None:
    """One that took every version, one that missed some, one that is new: all hold what the server says they see."""
    steps = published(codec, mode)
    faithful, before = (origin(models(1)[0], SPEC), steps[0].link.hash) if mode == "delta" else (None, "")
    for now in range(mode == "delta", len(steps)):
        known = steps[: now + 1]
        goal = known[-1]
        last = [(goal.link.codec, goal.link.full, goal.payload)]
        faithful, before = rebuild(faithful, before, last, SPEC, goal.link.hash).model, goal.link.hash
        for then in [None, *range(now + 1)]:
            base = None if then is None else steps[then].seen
            held = "" if then is None else steps[then].link.hash
            links = recipe([s.link for s in known], held, SPEC)
            arrived = rebuild(base, held, blobs(known, links), SPEC, goal.link.hash).model
            assert content_hash(arrived) == content_hash(faithful) == content_hash(goal.seen) == goal.link.hash
            assert all(a.flags.writeable for a in arrived.values() if links)


def test_what_a_delta_loses_the_next_one_carries() -> None:
    """The seen model is off by one coding error, not by the sum of all."""
    for codec in ("int8", "int4:stochastic=true"):
        steps, exact = published(codec, count=60), models(60)
        errors = [np.linalg.norm(flatten(s.seen) - flatten(x)) for s, x in zip(steps, exact, strict=True)]
        assert errors[-1] < 0.1 * errors[1]


def test_the_same_models_give_the_same_bytes() -> None:
    assert [s.payload for s in published("int4:stochastic=true")] == [
        s.payload for s in published("int4:stochastic=true")
    ]


def test_every_device_makes_the_origin_for_itself() -> None:
    first, second = published("topk:0.05+int8", count=2)
    assert first.link.origin
    assert first.link.bytes == len(first.payload) == 0
    made = origin(models(1)[0], SPEC)
    assert content_hash(made) == first.link.hash
    assert np.allclose(flatten(made), flatten(models(1)[0]), atol=2.0**-14)
    assert recipe([first.link], first.link.hash, SPEC) == []
    assert [link.codec for link in recipe([first.link, second.link], "", SPEC)] == ["raw"]
    assert recipe([first.link, second.link], first.link.hash, SPEC) == [second.link]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slow=st.floats(0.0, 2.0),
    rate=st.sampled_from((0.5, 2.0, 4.0)),
    spec=st.sampled_from((SPEC, SEVERAL)),
)
def test_on_the_lattice_every_way_leads_to_the_same_bits(seed: int, slow: float, rate: float, spec: Spec) -> None:
    """Deltas one by one, a direct one, and the difference taken backwards."""
    rng, publisher = np.random.default_rng(seed), Publisher(parse(f"ecsq:{rate},ladder=true"), "delta", spec)
    walk = np.cumsum(rng.standard_normal((9, spec.size)) / np.arange(1, 10)[:, None] ** slow, axis=0).astype(np.float32)
    walk[:, SPEC.size :] *= np.float32(100)
    walk[0, SPEC.size :] = 0
    steps: list[Step] = []
    for version, vector in enumerate(walk):
        seen, name = (steps[-1].seen, steps[-1].link.hash) if steps else (None, "")
        steps.append(publisher.publish(unflatten(vector, spec), seen, name, version))
    last = steps[-1]
    for then in steps[:-1]:
        made = publisher.direct(then.seen, then.link.hash, last.seen, last.link.hash)
        assert made is not None
        link, payload = made
        blob = [(link.codec, link.full, payload)]
        assert content_hash(rebuild(then.seen, then.link.hash, blob, spec, link.hash).model) == last.link.hash
    back: Tensors = last.seen
    for step in reversed(steps[1:]):
        assert step.change is not None
        back = subtract(back, step.change)
    assert content_hash(back) == steps[0].link.hash


@settings(max_examples=100, deadline=None)
@given(
    levels=st.lists(st.integers(-32767, 32767), min_size=1, max_size=40),
    scale=st.integers(-90, 70),
    model=st.booleans(),
)
def test_whole_multiples_of_a_power_of_two_are_sent_to_the_bit(levels: list[int], scale: int, model: bool) -> None:
    codec, spec = parse(LADDER + ",model=static" * model), Spec((TensorSpec("x", (len(levels),)),))
    assert isinstance(codec, Ecsq)
    tensors = {"x": np.ldexp(np.array(levels, np.float32), scale)}
    payload = codec.exact(tensors)
    assert payload is not None
    assert content_hash(unseal(codec, payload, NOTHING, Context(), spec)[0]) == content_hash(tensors)
    near = {"x": np.append(tensors["x"], np.ldexp(np.float32(32767.5), scale))}
    assert codec.exact(near) is None
    assert parse("ecsq:2").exact(tensors) is None  # type: ignore[union-attr]


def test_a_direct_delta_is_less_than_the_chain() -> None:
    steps, publisher = published(LADDER, count=8), Publisher(parse(LADDER), "delta", SPEC)
    first, last = steps[0], steps[-1]
    made = publisher.direct(first.seen, first.link.hash, last.seen, last.link.hash)
    assert made is not None
    link, payload = made
    assert len(payload) == link.bytes < sum(step.link.bytes for step in steps[1:])
    history = [step.link for step in steps]
    assert recipe(history, first.link.hash, SPEC, lambda held: link if held == first.link.hash else None) == [link]
    assert recipe(history, steps[-2].link.hash, SPEC, lambda _: link) == [last.link], "one step behind: the step itself"
    elsewhere = {n: a + np.float32(1e-7) for n, a in first.seen.items()}
    assert publisher.direct(elsewhere, "0" * 64, last.seen, last.link.hash) is None, "not on the lattice"
    other = published("ecsq:2", count=3)
    assert (
        Publisher(parse("ecsq:2"), "delta", SPEC).direct(other[0].seen, "", other[2].seen, other[2].link.hash) is None
    )


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
    for text in ("topk:0.1+int8", "ecsq:3", LADDER):
        with pytest.raises(CodecError, match="for whole models, such as 'int8'"):
            Publisher(parse(text), "full", SPEC)
    with pytest.raises(CodecError, match="'predict', which is for uploads"):
        Publisher(parse(f"predict+{LADDER}"), "delta", SPEC)


def test_a_model_that_diverged_is_not_published() -> None:
    publisher = Publisher(parse("int8"), "delta", SPEC)
    with pytest.raises(SpecError, match="finite"):
        publisher.publish(unflatten(np.full(SPEC.size, np.nan, np.float32), SPEC), None, "", 0)
    with pytest.raises(SpecError, match="the model to publish"):
        publisher.publish({"w": np.zeros((8, 25), np.float32)}, None, "", 0)
