"""What travels beside a model: how it begins, how it is told, and that each group is coded as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.compression.codec import NOTHING, Context
from fedpress.compression.grouped import Grouped, per_group
from fedpress.compression.layout import begin, beside, from_infos, part, plain, spec_of, to_infos
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import DecodeError, SpecError
from fedpress.params import Array, Spec, content_hash

MODEL = {"w": np.arange(600, dtype=np.float32).reshape(20, 30) / 600, "b": np.ones(20, np.float32)}
FULL = Spec.of(MODEL)
LAYOUT = (*plain(FULL.names), *beside("control", FULL.names))
SPEC = spec_of(LAYOUT, FULL)


def tensors(scale: float, seed: int = 0) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    return {
        t.name: draw.laplace(size=t.shape).astype(np.float32) * np.float32(scale if ":" in t.name else 1) for t in SPEC
    }


@pytest.mark.parametrize(
    "text", ["raw", "ef:0.9+predict:0.5+ecsq:3", "ef21:0.5+topk:0.1+int8", "int4", "dgc:0.7+ecsq:6"]
)
@given(scale=st.sampled_from([1e-4, 1.0, 1e4]), seed=st.integers(0, 3))
def test_a_group_is_coded_as_if_it_were_alone(text: str, scale: float, seed: int) -> None:
    codec, update, context, rng = parse(text), tensors(scale, seed), Context(1, 1), Stream(0)
    several = per_group(codec, SPEC)
    payload, state = seal(codec, update, several.init(SPEC), context, Stream(0))
    found, _ = unseal(codec, payload, several.memory(SPEC), context, SPEC)
    assert list(found) == list(update)
    assert len(payload) <= max_bytes(codec, SPEC)
    for label in ("", "control"):
        own = {n: a for n, a in update.items() if n in found and (":" in n) == bool(label)}
        spec = Spec.of(own)
        alone, _ = unseal(codec, seal(codec, own, codec.init(spec), context, rng)[0], codec.memory(spec), context, spec)
        assert part(label, found).keys() == part(label, alone).keys()
        if "+" not in text or "int8" not in text:  # which draw from one stream, one after the other
            assert content_hash(part(label, found)) == content_hash(part(label, alone))
    assert set(state) == set(several.init(SPEC))


def test_a_group_of_zeros_costs_next_to_nothing() -> None:
    codec, update = parse("ef:0.9+predict:0.5+ecsq:3"), tensors(0.0)
    alone = {n: a for n, a in update.items() if ":" not in n}
    both, _ = seal(codec, update, per_group(codec, SPEC).init(SPEC), Context(), Stream(0))
    one, _ = seal(codec, alone, codec.init(FULL), Context(), Stream(0))
    assert len(both) <= len(one) + 8


def test_one_group_has_no_frame_and_malformed_frames_are_refused() -> None:
    codec = parse("int8")
    assert per_group(codec, FULL) is codec
    assert isinstance(per_group(codec, SPEC), Grouped)
    payload, _ = seal(codec, tensors(1.0), NOTHING, Context(), Stream(0))
    for bad in (b"", payload[:-1], payload + b"\0", b"\xff\xff\xff\xff\x0f" + payload[2:], payload[3:]):
        with pytest.raises(DecodeError):
            unseal(codec, bad, NOTHING, Context(), SPEC)


def test_parts_begin_as_their_start_says() -> None:
    layout = (
        *plain(FULL.names),
        *beside("zero", ["b"]),
        *beside("other", FULL.names, start=2),
        *beside("third", ["w"], 3),
    )
    made = begin(layout, MODEL)
    assert list(made) == ["w", "b", "zero:b", "other:w", "other:b", "third:w"]
    assert not made["zero:b"].any()
    for name in ("other:w", "third:w"):
        assert not np.array_equal(made[name], MODEL["w"])
        assert np.array_equal(np.sort(made[name], axis=None), np.sort(MODEL["w"], axis=None))
    assert not np.array_equal(made["other:w"], made["third:w"])
    assert content_hash(begin(layout, MODEL)) == content_hash(made)


def test_kinds_are_told_and_a_device_with_others_is_told_which_tensor() -> None:
    full = Spec.of(MODEL, {"w": "frozen", "b": "statistic"})
    layout = (*plain(full.names), *beside("control", ["w"]), *beside("cluster", ["w", "b"], 2))
    spec = spec_of(layout, full)
    assert [spec.kinds.get(n) for n in ("w", "b", "control:w", "cluster:w", "cluster:b")] == [
        *("frozen", "statistic"),
        *(None, "frozen", "statistic"),
    ]
    assert from_infos(to_infos(layout, spec), full) == (layout, spec)
    with pytest.raises(SpecError, match="Expected tensor 'w' as a frozen tensor as in the run, got a weight"):
        from_infos(to_infos(layout, spec), Spec.of(MODEL, {"b": "statistic"}))
    unknown = to_infos(layout, spec)
    unknown[0].kind = 3  # type: ignore[assignment]  # a number on the wire may be any
    with pytest.raises(SpecError, match=r"number of a kind of tensor \(weight, statistic, frozen\), got 3"):
        from_infos(unknown, full)


def test_a_layout_is_told_and_checked() -> None:
    assert from_infos(to_infos(LAYOUT, SPEC), FULL) == (LAYOUT, SPEC)
    smaller = Spec.of({**MODEL, "w": MODEL["w"][:10]})
    with pytest.raises(SpecError, match=r"tensor 'w' float32\[20, 30\], this device's model has float32\[10, 30\]"):
        from_infos(to_infos(LAYOUT, SPEC), smaller)
    with pytest.raises(SpecError, match="another order"):
        from_infos(to_infos(LAYOUT, SPEC)[1::-1], FULL)
    for bad in (LAYOUT[1]._replace(of="w"), LAYOUT[1]._replace(name="fc"), LAYOUT[1]._replace(name="controlb")):
        with pytest.raises(SpecError, match=f"'{bad.name}' to bear the name of '{bad.of}'"):
            from_infos(to_infos((LAYOUT[0], bad), spec_of((LAYOUT[0], bad), FULL)), FULL)
    many = (*plain(FULL.names), *(p for i in range(20) for p in beside(f"c{i}", FULL.names)))
    with pytest.raises(SpecError, match="16 times"):
        from_infos(to_infos(many, spec_of(many, FULL)), FULL)
