"""The benches: their bound is the closed form's, their streams are what codecs see, their tables add up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedpress.cli import app
from fedpress.client.probe import Encoding
from fedpress.compression.codec import Context
from fedpress.compression.payload import seal, unseal
from fedpress.compression.registry import ids, parse
from fedpress.compression.stream import Stream
from fedpress.errors import PlanError
from fedpress.params import Spec, Tensors, add, flatten, subtract
from fedpress.simulations.benchmarks import codecs, comparison, traffic
from fedpress.simulations.benchmarks.rate_distortion import bound
from fedpress.simulations.benchmarks.updates import recorded
from fedpress.simulations.records import RoundRecord
from fedpress.simulations.results import Result, Summary
from fedpress.simulations.tap import bare, passed

RNG = np.random.default_rng(7)


def tensors(seed: int = 0) -> Tensors:
    draw = np.random.default_rng(seed)
    return {"a": draw.laplace(size=(30, 40)).astype(np.float32), "b": draw.laplace(size=40).astype(np.float32)}


def test_bound_of_a_gaussian_is_the_closed_form() -> None:
    found = bound(3 * RNG.standard_normal(50_000, dtype=np.float32))
    for nmse in (0.9, 0.5, 0.1, 0.01, 1e-4):
        assert found.bits(nmse) == pytest.approx(0.5 * math.log2(1 / nmse), rel=0.02)
    assert found.bits(1.5) == 0


def test_bound_of_a_laplacian_lies_between_shannons_and_the_gaussians() -> None:
    found = bound(RNG.laplace(size=50_000).astype(np.float32))
    for nmse in (0.7, 0.3, 0.1, 0.01):
        shannon = math.log2(math.sqrt(2) * math.e) - 0.5 * math.log2(2 * math.pi * math.e * nmse)
        assert shannon * 0.99 - 0.005 < found.bits(nmse) < 0.5 * math.log2(1 / nmse)


def test_bound_knows_zeros() -> None:
    numbers = np.zeros(20_000, np.float32)
    numbers[:2000] = RNG.standard_normal(2000)
    half = bound(numbers).bits(0.5)
    split = -0.1 * math.log2(0.1) - 0.9 * math.log2(0.9)  # where the others are, and then those
    assert 0.05 < half < split + 0.1 * 0.5


def test_a_tap_changes_nothing_and_sees_what_is_coded() -> None:
    codec, context = parse("ef+predict:0.5+ecsq:3"), Context(5, 2, tensors())
    state = codec.init(Spec.of(tensors()))
    _, state = seal(codec, tensors(2), state, context, Stream(1))
    wrapped = passed(Encoding(codec, tensors(), state, context, Stream(3)))
    payload, after = seal(codec, tensors(), state, context, Stream(3))
    assert wrapped.payload == payload
    assert all(np.array_equal(wrapped.state[n], after[n]) for n in after)
    corrected = add(tensors(), {n: state[f"residual/{n}"] for n in tensors()})
    expected = subtract(corrected, {n: np.float32(0.5) * a for n, a in tensors().items()})
    assert all(np.array_equal(wrapped.seen[n], expected[n]) for n in expected)
    left = subtract(wrapped.seen, wrapped.arrived)
    assert np.allclose(flatten(left), flatten({n: after[f"residual/{n}"] for n in tensors()}), atol=1e-6)

    plain = parse("topk:0.1+int8")
    one = passed(Encoding(plain, tensors(), plain.init(Spec.of(tensors())), context, Stream(3)))
    decoded, _ = unseal(plain, one.payload, plain.memory(Spec.of(tensors())), context, Spec.of(tensors()))
    assert all(np.array_equal(one.arrived[n], decoded[n]) for n in decoded)
    assert one.seen is not None
    assert np.array_equal(flatten(one.seen), flatten(tensors()))
    assert bare(plain)
    assert not bare(codec)


def test_every_codec_is_measured_and_wrapped_ones_see_what_the_loop_saw(tmp_path: Path) -> None:
    named = {part.split(":")[0] for text in codecs.chains() for part in parse(text).text.split("+")}
    assert {name for name in ids() if codecs.CHAINS.get(name, (name,))} <= named
    updates = recorded(tmp_path, "digits", rounds=3, clients=1)
    again = recorded(tmp_path, "digits", rounds=3, clients=1)
    assert [u.round for u in updates.rows] == [1, 2, 3]
    assert np.array_equal(flatten(again.rows[2].seen), flatten(updates.rows[2].seen))
    assert updates.rows[0].step is None
    rows, shared = codecs.measure([updates.codec, "nmse:0.4", "raw"], updates, "loop")
    loop, plain, raw = rows
    assert loop.replayed
    assert not plain.replayed
    assert (loop.nmse, loop.bits) == pytest.approx((plain.nmse, plain.bits), rel=0.02)  # one loop, seen from two sides
    assert plain.bound == shared.bits(plain.nmse)
    assert (raw.bits, raw.nmse) == (32, 0)
    ((_, speed),) = codecs.throughput(["int8"], updates, 5000)
    assert speed.parameters == 5000
    assert speed.payload < speed.parameters + 100
    written = codecs.save(rows, shared, updates, "loop", tmp_path)
    assert [path.suffix for path in written] == [".json", ".svg", ".png"]
    assert all(path.stat().st_size for path in written)


def result(accuracies: list[float], sent: int) -> Result:
    """Rounds of ``sent`` bytes each way of 4000, and these accuracies."""
    rounds = [
        RoundRecord(i + 1, metrics={"accuracy": a}, bytes_up=sent, bytes_up_uncompressed=4000, bytes_down=sent,
                    bytes_down_uncompressed=4000)
        for i, a in enumerate(accuracies)
    ]  # fmt: skip
    total, full = sent * len(rounds), 4000 * len(rounds)
    summary = Summary(
        "x", "digits", "fedavg", len(rounds), 1.0, total, full, total, full, "raw", "raw", 1000, 1, "inline", 0, "ab",
        accuracy=accuracies[-1], wire_up=2 * total, wire_down=2 * total,
    )  # fmt: skip
    return Result(Path("x"), summary, rounds)


def test_a_comparison_by_hand() -> None:
    fp32 = result([0.5, 0.8, 0.9, 0.9, 0.9], 4000)
    ours = result([0.5, 0.6, 0.9, 0.9, 0.88, 0.9, 0.86], 100)
    line = comparison.compare("digits", "x", [fp32], [ours])
    assert line.loss == pytest.approx(0.04)
    assert (line.bits_up, line.message_bits_up) == pytest.approx((0.8, 1.6))
    assert line.ratio == pytest.approx(40 * 5 / 7)
    assert line.ratio_to_target == pytest.approx(40 * 5 / 5)  # a mean of three at 0.89: both in round 5
    assert line.rounds_to_target == pytest.approx(1.0)
    assert line.reached == 1
    never = comparison.compare("digits", "x", [fp32, fp32], [ours, result([0.1] * 4, 100)])
    assert (never.reached, never.ratio_to_target, never.rounds_to_target) == (1, pytest.approx(40), 1.0)
    assert comparison.mean_curve([fp32])[0] == (8000, 0.5)


def test_traffic_runs_keeps_and_compares(tmp_path: Path) -> None:
    keys = ("run.rounds=2", "clients.count=2", "train.epochs=1")
    fp32, small = traffic.run(["digits"], ["top-k"], [0], tmp_path, keys)
    assert fp32.bits_up == 32
    assert 0.16 < small.bits_up < small.message_bits_up < 0.6  # 2 % of 8 bits, and their places
    kept, run = tmp_path / "digits-top-k-0" / "summary.json", tmp_path / "digits-top-k-0" / "plan.toml"
    before = kept.stat().st_mtime_ns
    older = run.read_text().replace("shadows = 8\n", "")  # as if the key were newer than the run
    run.write_text(older)
    assert traffic.run(["digits"], ["top-k"], [0], tmp_path, keys)[1] == small
    assert kept.stat().st_mtime_ns == before
    assert run.read_text() == older
    run.write_text("[task]\nname = 1\n")
    assert traffic.run(["digits"], ["top-k"], [0], tmp_path, keys)[1].bits_up == small.bits_up
    assert kept.stat().st_mtime_ns > before
    assert (tmp_path / "traffic-digits.svg").exists()
    with pytest.raises(PlanError, match="Unknown arm"):
        traffic.run(["digits"], ["int9"], [0], tmp_path)


def test_bench_on_the_command_line(tmp_path: Path) -> None:
    words = ["bench", "codecs", "ecsq:4", "--rounds", "2", "--clients", "1", "--size", "2000", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "x bound" in done.output
    assert "2.00 k parameters" in done.output
