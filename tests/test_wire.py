"""The contract of ``fleet.proto``, read by somebody who has only that: decoders in plain Python, without fedpress."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.compression.codec import Context
from fedpress.compression.payload import seal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.params import Spec, content_hash, unflatten
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import checksum, put_metrics, short

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "wire.md").read_text(encoding="utf-8")
SHAPES = {"w": [2, 3], "b": [2]}
MODEL = {"w": np.array([[0.5, -1, 0.25], [2, 0, -0.125]], np.float32), "b": np.array([1, -0.5], np.float32)}
UPDATE = {"w": np.array([[0, 0.5, -0.25], [0.125, 0, -1]], np.float32), "b": np.array([0.0625, 0], np.float32)}

UPLOAD = bytes.fromhex("a002010b0402013cbf5f00")


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def bits(data: bytes) -> list[int]:
    return [byte >> i & 1 for byte in data for i in range(8)]


def model_hash(numbers: list[float]) -> str:
    spec = json.dumps([[name, shape, "float32"] for name, shape in SHAPES.items()], separators=(",", ":"))
    head = hashlib.sha256(spec.encode("ascii")).hexdigest().encode("ascii")
    return hashlib.sha256(head + struct.pack(f"<{len(numbers)}f", *numbers)).hexdigest()


def int8(data: bytes, groups: list[int]) -> list[float]:
    scales = struct.unpack(f"<{len(groups)}f", data[: 4 * len(groups)])
    codes = iter(data[4 * len(groups) :])
    return [f32((next(codes) - 127) * scale) for scale, size in zip(scales, groups, strict=True) for _ in range(size)]


def topk(data: bytes, n: int, density: float) -> list[int]:
    k = max(1, math.ceil(density * n))
    r = max(0, (77 * (2 * n - k) // (160 * k)).bit_length() - 1)
    low_bytes = (k * r + 7) // 8
    low, unary = bits(data[:low_bytes]), bits(data[low_bytes:])
    indices, at = [], -1
    for i in range(k):
        high = unary.index(1)
        unary = unary[high + 1 :]
        gap = (high << r) + sum(bit << j for j, bit in enumerate(low[i * r : (i + 1) * r]))
        at += gap + 1
        indices.append(at)
    return indices


def fields(message: bytes) -> dict[int, Any]:
    """The fields of a protobuf message by number: integers, floats (fixed32) and bytes."""
    found: dict[int, Any] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            value |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if not message[at - 1] & 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            found[number] = varint()
        elif kind == 5:
            found[number], at = struct.unpack("<f", message[at : at + 4])[0], at + 4
        else:
            size = varint()
            found[number], at = message[at : at + size], at + size
    return found


def test_the_page_holds_what_the_code_sends() -> None:
    spec = Spec.of(MODEL)
    download, _ = seal(parse("int8"), MODEL, {}, Context(), Stream(0))
    codec = parse("ef+topk:0.3+int8")
    upload, _ = seal(codec, UPDATE, codec.init(spec), Context(7, 1), Stream(0))
    for text in (spec.to_json(), spec.hash, content_hash(MODEL), download.hex(), upload.hex()):
        assert f"`{text}`" in PAGE


def test_a_stranger_rebuilds_the_model_and_its_hash() -> None:
    numbers = int8(bytes.fromhex("0402813c0402013c9f3f8ffe7f77fe3f"), [6, 2])
    assert numbers[0] == pytest.approx(0.503937, abs=1e-6)
    assert f"`{model_hash(numbers)}`" in PAGE
    assert model_hash([x for a in MODEL.values() for x in a.reshape(-1).tolist()]) == content_hash(MODEL)


def test_a_stranger_reads_the_upload() -> None:
    assert UPLOAD[0] == 0xA0
    payload = UPLOAD[1:]
    indices = topk(payload[1 : 1 + payload[0]], 8, 0.3)
    assert indices == [1, 2, 5]
    assert int8(payload[1 + payload[0] :], [3]) == pytest.approx([0.503937, -0.251969, -1.0], abs=1e-6)


@pytest.mark.parametrize(("n", "density"), [(1000, 0.01), (5000, 0.002), (777, 0.3), (50, 1.0), (12345, 0.05)])
def test_a_stranger_reads_any_indices(n: int, density: float) -> None:
    spec = Spec.of({"x": np.zeros(n, np.float32)})
    values = Stream(n).uniform(n) - np.float32(0.5)
    payload, _ = seal(parse(f"topk:{density}+raw"), unflatten(values, spec), {}, Context(), Stream(0))
    length, at = 0, 0
    while True:
        length |= (payload[at] & 127) << 7 * at
        at += 1
        if not payload[at - 1] & 128:
            break
    indices = topk(payload[at : at + length], n, density)
    assert indices == sorted(np.argsort(-np.abs(values), kind="stable")[: len(indices)].tolist())
    assert payload[at + length :] == values[indices].astype("<f4").tobytes()


def test_a_stranger_reads_the_messages_of_a_round() -> None:
    shown = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]+)` \|$", PAGE, re.MULTILINE))
    model, payload = bytes.fromhex(shown["Ticket.model"]), UPLOAD
    assert fields(bytes.fromhex(shown["WorkRequest"])) == {1: model[:8], 3: 20.0}
    part = fields(bytes.fromhex(shown["PushPart"]))
    assert part[2] == payload
    header = fields(part[1])
    report = header.pop(6)
    assert header == {1: bytes(range(8)), 2: model[:8], 3: 11, 4: hashlib.sha256(payload).digest()[:8]}
    assert fields(report) == {1: 300, 2: 10, 3: 0.5, 4: 1.5, 7: 100, 8: 0.75}


def test_the_page_holds_the_messages_the_code_sends() -> None:
    shown = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]+)` \|$", PAGE, re.MULTILINE))
    base, payload = short(shown["Ticket.model"]), UPLOAD
    report = pb.Report(examples=300, steps=10, loss=0.5, train_seconds=1.5, held_out=100)
    put_metrics(report, {"accuracy": 0.75})
    header = pb.PushHeader(ticket=bytes(range(8)), base=base, size=11, checksum=checksum(payload), report=report)
    assert pb.WorkRequest(held=base, wait_seconds=20).SerializeToString().hex() == shown["WorkRequest"]
    assert pb.PushPart(header=header, data=payload).SerializeToString().hex() == shown["PushPart"]
