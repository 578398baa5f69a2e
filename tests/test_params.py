from __future__ import annotations

import numpy as np
import pytest

from fedpress.errors import SpecError
from fedpress.params import (
    KINDS,
    Kind,
    Spec,
    add,
    content_hash,
    flatten,
    from_bytes,
    ordered,
    subtract,
    to_bytes,
    unflatten,
    zeros,
)

MODEL = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([0.5, -1.5], np.float32),
    "scale": np.float32(2).reshape(()),
}
SPEC = Spec.of(MODEL)


def test_flat_views_and_deltas_give_the_same_model_back() -> None:
    again = unflatten(flatten(MODEL), SPEC)
    SPEC.check(again)
    moved = add(MODEL, subtract(again, MODEL))
    assert content_hash(moved) == content_hash(again) == content_hash(MODEL)


def test_safetensors_round_trip_keeps_scalars_and_is_put_in_order() -> None:
    again = ordered(from_bytes(to_bytes(MODEL, {"round": "3"})), SPEC)
    assert content_hash(again) == content_hash(MODEL)
    assert from_bytes(to_bytes({})) == {}
    with pytest.raises(SpecError, match="safetensors"):
        from_bytes(b"not a model")


def test_the_content_hash_tells_names_shapes_and_bits_apart() -> None:
    others = [
        {**MODEL, "scale": np.float32(2.0000002).reshape(())},
        {("c" if n == "scale" else n): a for n, a in MODEL.items()},
        {n: a.reshape(-1) for n, a in MODEL.items()},
        dict(reversed(MODEL.items())),
    ]
    assert len({content_hash(m) for m in (MODEL, *others)}) == 5


def test_the_content_hash_is_what_the_contract_says() -> None:
    import hashlib

    tensors = {"w": np.array([1.0, -2.0], np.float32)}
    spec = hashlib.sha256(b'[["w",[2],"float32"]]').hexdigest()
    assert content_hash(tensors) == hashlib.sha256(spec.encode() + bytes.fromhex("0000803f000000c0")).hexdigest()


def test_a_spec_refuses_what_it_is_not() -> None:
    SPEC.check(zeros(SPEC))
    for wrong in (
        {"b.weight": MODEL["b.weight"]},
        dict(reversed(MODEL.items())),
        {**MODEL, "scale": np.zeros(1, np.float32)},
        {**MODEL, "scale": np.float64(1).reshape(())},
    ):
        with pytest.raises(SpecError):
            SPEC.check(wrong)
    assert Spec.from_json(SPEC.to_json()) == SPEC
    for bad in ("{}", '[["w",[2],"float32","lively"]]', '[["w",[2],"float32","frozen",1]]'):
        with pytest.raises(SpecError):
            Spec.from_json(bad)


def test_kinds_are_part_of_a_spec_and_not_of_what_it_checks() -> None:
    kinds: dict[str, Kind] = {"a.bias": "statistic", "scale": "frozen"}
    spec = Spec.of(MODEL, kinds)
    assert (spec.kinds, SPEC.kinds) == (kinds, {})
    assert [spec.named(kind) for kind in KINDS] == [("b.weight",), ("a.bias",), ("scale",)]
    assert spec.named("weight", "frozen") == ("b.weight", "scale")
    assert Spec.from_json(spec.to_json()) == spec
    assert len({SPEC.hash, spec.hash, Spec.of(MODEL, {"scale": "statistic"}).hash}) == 3
    spec.check(MODEL)
    assert spec.without(["b.*"]).kinds == kinds


def test_patterns_name_tensors_and_a_miss_lists_them() -> None:
    assert SPEC.without(["b.*"]).names == ("a.bias", "scale")
    assert SPEC.matching(["*.bias", "b.*"]) == ("b.weight", "a.bias")
    with pytest.raises(SpecError, match=r"c\.\*.*a\.bias"):
        SPEC.without(["c.*"])
