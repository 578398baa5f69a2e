"""What wrappers remember: how long, what of it comes back, and around which chains they refuse to stand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from fedpress.compression.codec import Codec, Context, State
from fedpress.compression.payload import max_bytes, seal, unseal
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, SpecError
from fedpress.params import Spec, Tensors, TensorSpec

SPEC = Spec((TensorSpec("x", (64,)),))


def numbers(*values: float) -> Tensors:
    """The first numbers of the model, zeros behind."""
    return {"x": np.pad(np.array(values, np.float32), (0, 64 - len(values)))}


class Link:
    """A sender and a receiver that lose nothing on the way."""

    def __init__(self, codec: str) -> None:
        self.codec: Codec = parse(codec)
        self.state, self.memory = self.codec.init(SPEC), self.codec.memory(SPEC)
        self.bytes = 0

    def send(self, tensors: Tensors, round_: int) -> list[float]:
        """The first numbers of what arrives."""
        context = Context(round_, round_)
        payload, self.state = seal(self.codec, tensors, self.state, context, Stream(round_))
        self.bytes = len(payload)
        arrived, self.memory = unseal(self.codec, payload, self.memory, context, SPEC)
        return [float(v) for v in arrived["x"][:4]]

    def sends(self, tensors: Tensors, rounds: Iterable[int]) -> list[list[float]]:
        return [self.send(tensors, round_) for round_ in rounds]


def kept(state: State, key: str = "residual/x") -> list[float]:
    return [float(v) for v in state[key][:4]]


# -- ef ---------------------------------------------------------------------------------------------------------------


def test_a_residual_fades_by_its_age_and_not_by_how_often_it_was_tried() -> None:
    link = Link("ef:0.5+topk:0.01")
    link.send(numbers(8, 4), 3)
    assert kept(link.state) == [0, 4, 0, 0]
    for _ in range(2):  # lost on the way: the state stays, and what is sent with it
        _, new = seal(link.codec, numbers(8), link.state, Context(0, 5), Stream(0))
        assert kept(new) == [0, 1, 0, 0]  # two rounds old
    link.send(numbers(8), 4)
    assert kept(link.state) == [0, 2, 0, 0]
    link.send(numbers(8), 8)
    assert kept(link.state) == [0, 0.125, 0, 0]


@pytest.mark.parametrize(("missed", "left"), [(0, 4), (1, 4), (2, 0), (40, 0)])
def test_a_stale_residual_is_forgotten(missed: int, left: float) -> None:
    link = Link("ef:1.0,stale=2+topk:0.01")
    link.send(numbers(8, 4), 1)
    link.send(numbers(8), 2 + missed)
    assert kept(link.state)[1] == left


def test_without_decay_a_residual_waits_however_long() -> None:
    link = Link("ef+topk:0.01")
    link.send(numbers(8, 4), 1)
    assert link.send(numbers(), 1_000_000) == [0, 4, 0, 0]


# -- ef21 -------------------------------------------------------------------------------------------------------------


def test_ef21_arrives_at_an_update_that_repeats_itself_and_then_sends_nothing_new() -> None:
    link = Link("ef21+topk:0.01+raw")
    assert link.sends(numbers(8, 4, -2), (1, 2, 3, 4)) == [[8, 0, 0, 0], [8, 4, 0, 0], *[[8, 4, -2, 0]] * 2]
    assert kept(link.memory, "last/x") == kept(link.state, "last/x") == [8, 4, -2, 0]


def test_ef21_lets_the_past_fade_by_scale() -> None:
    link = Link("ef21:0.5+topk:0.01")
    assert link.send(numbers(8, 4), 1) == [8, 0, 0, 0]
    assert link.send(numbers(8, 3), 2) == [8, 0, 0, 0]  # 8 and 3 less 4 and 0: the 4 travels
    assert link.send(numbers(0, 3), 3) == [0, 0, 0, 0]


@pytest.mark.parametrize("text", ["ef+topk:0.1", "ef21+topk:0.1", "dgc+topk:0.1"])
def test_a_state_of_another_model_is_refused(text: str) -> None:
    codec = parse(text)
    other = codec.init(Spec((TensorSpec("x", (63,)),)))
    for state in ({}, other):
        with pytest.raises(SpecError, match=f"of '{codec.id}'"):
            seal(codec, numbers(1), state, Context(), Stream(0))


def test_a_memory_of_another_model_is_refused() -> None:
    codec = parse("ef21+topk:0.1")
    payload, _ = seal(codec, numbers(1), codec.init(SPEC), Context(), Stream(0))
    with pytest.raises(SpecError, match="last of 'ef21'"):
        unseal(codec, payload, {}, Context(), SPEC)


# -- dgc --------------------------------------------------------------------------------------------------------------


def test_dgc_keeps_the_momentum_of_what_waits_and_stops_that_of_what_was_sent() -> None:
    link = Link("dgc:0.5+topk:0.01")
    assert link.send(numbers(8, 4), 1) == [8, 0, 0, 0]
    assert (kept(link.state, "velocity/x")[:2], kept(link.state)[:2]) == ([0, 4], [0, 4])
    assert link.send(numbers(8, 4), 2) == [0, 10, 0, 0]  # 4 + (4 + 4/2); what was sent goes on without a push
    assert (kept(link.state, "velocity/x")[:2], kept(link.state)[:2]) == ([8, 0], [8, 0])


def test_dgc_lets_a_velocity_fade_in_missed_rounds() -> None:
    link = Link("dgc:0.5+topk:0.01")
    link.send(numbers(8, 4), 1)
    assert link.send(numbers(8), 4) == [8, 0, 0, 0]
    assert (kept(link.state, "velocity/x")[:2], kept(link.state)[:2]) == ([0, 0.5], [0, 4.5])


def test_dgc_without_momentum_is_ef() -> None:
    for codec in ("topk:0.05+int8", "ecsq:2"):
        dgc, ef = Link(f"dgc:0.0+{codec}"), Link(f"ef+{codec}")
        updates = [numbers(*np.sin(np.arange(64) * (turn + 1))) for turn in range(5)]
        for round_, update in enumerate(updates, 1):
            assert dgc.send(update, round_) == ef.send(update, round_)


def test_warm_up_halves_the_density_until_it_is_the_chains_own() -> None:
    link = Link("dgc:0.5,warmup=4+topk:0.01+raw")
    update = numbers(*0.7 ** np.arange(64))
    sizes = []
    for round_ in range(1, 7):
        link.send(update, round_)
        sizes.append(link.bytes)
    assert sizes == sorted(sizes, reverse=True)
    assert 16 * 4 <= sizes[0] <= max_bytes(link.codec, SPEC)
    assert sizes[3] > sizes[4] == sizes[5] < 4 + 5


# -- what they stand around -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["ef", "ef21", "dgc"])
@pytest.mark.parametrize(
    ("inner", "instead"),
    [
        ("randomk:0.1", "'randomk:0.1,unbiased=false[+]raw' would go"),
        ("uniform:2,stochastic=true", "'uniform:2' would go"),
        ("randomk:0.4,unbiased=false+uniform:2,stochastic=true", "'randomk:0.4,unbiased=false[+]uniform:2' would go"),
        ("rotation:2", "'rotation:2,scale=mse' would go"),
        ("qsgd:4", "Leave out"),
    ],
)
def test_a_chain_that_may_lose_more_than_there_was_is_refused(wrapper: str, inner: str, instead: str) -> None:
    with pytest.raises(CodecError, match=f"inside '{wrapper}'.*{instead}"):
        parse(f"{wrapper}+{inner}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dgc:1+topk", "0 <= momentum < 1"),
        ("dgc:0.5,warmup=4+ecsq", "warmup = 0, or first a stage with a density"),
        ("dgc:0.5,warmup=4+topk:0.3", "density below 0.25"),
        ("dgc:0.5,warmup=1001+topk", "0 to 1000 rounds"),
        ("ef21:0+topk", "0 < scale <= 1"),
        ("ef:1.0,stale=-1+topk", "number of rounds"),
    ],
)
def test_options_without_sense_are_refused(text: str, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        parse(text)
