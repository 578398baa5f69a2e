"""The text form: what is understood, what it becomes, and what is refused with which words."""

from __future__ import annotations

import json

import pytest

from fedpress.compression.chain import Chain
from fedpress.compression.dgc import DGC
from fedpress.compression.ef21 import EF21
from fedpress.compression.feedback import ErrorFeedback
from fedpress.compression.payload import seal
from fedpress.compression.randomk import RandomK
from fedpress.compression.raw import Raw
from fedpress.compression.registry import describe, from_json, ids, ids_of, parse, to_json
from fedpress.compression.stream import Stream
from fedpress.compression.topk import TopK
from fedpress.compression.uniform import Uniform
from fedpress.errors import CodecError
from fedpress.params import Spec, zeros


@pytest.mark.parametrize(
    ("text", "codec", "canonical"),
    [
        ("raw", Raw(), "raw"),
        ("int8", Uniform(), "uniform:8"),
        ("sign", Uniform(bits=1), "uniform:1"),
        ("int4:per=channel", Uniform(4, per="channel"), "uniform:4,per=channel"),
        ("uniform:bits=4,stochastic=true", Uniform(4, stochastic=True), "uniform:4,stochastic=true"),
        ("topk", Chain((TopK(), Raw())), "topk:0.01+raw"),
        (" topk : density = 0.5 + int8 ", Chain((TopK(0.5), Uniform())), "topk:0.5+uniform:8"),
        ("topk:1", Chain((TopK(1.0), Raw())), "topk:1.0+raw"),
        ("randomk:1e-05,unbiased=false", Chain((RandomK(1e-5, False), Raw())), "randomk:1e-05,unbiased=false+raw"),
        ("ef+topk:0.02+int8", ErrorFeedback(Chain((TopK(0.02), Uniform()))), "ef+topk:0.02+uniform:8"),
        ("ef+sign", ErrorFeedback(Uniform(1)), "ef+uniform:1"),
        (" ef : decay = 1.0 + sign", ErrorFeedback(Uniform(1)), "ef+uniform:1"),
        ("ef:stale=3+sign", ErrorFeedback(Uniform(1), stale=3), "ef:1.0,stale=3+uniform:1"),
        ("ef21+int8", EF21(Uniform()), "ef21+uniform:8"),
        ("dgc:0.9,warmup=4+topk", DGC(Chain((TopK(), Raw())), 0.9, 4), "dgc:0.9,warmup=4+topk:0.01+raw"),
    ],
)
def test_understood(text: str, codec: Raw, canonical: str) -> None:
    assert parse(text) == codec
    assert parse(text).text == canonical
    assert parse(canonical) == codec
    assert from_json(to_json(codec)) == codec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expected codecs joined by"),
        ("+", "Expected codecs joined by"),
        ("topk:0.1++int8", "Expected codecs joined by"),
        ("topl:0.1", "Unknown codec 'topl'.*Did you mean 'topk'"),
        ("TOPK", "Unknown codec 'TOPK'"),
        ("chain", "Unknown codec 'chain'"),
        ("int8+raw", "nothing after the last stage 'uniform:8', got 'raw'"),
        ("ef", "Expected 'ef' first"),
        ("ef+", "Expected codecs joined by"),
        ("ef+ef+int8", "Expected 'ef' first"),
        ("topk+ef+int8", "Expected 'ef' first"),
        ("ef:0.9", "Expected 'ef' first"),
        ("topk:0.5+predict+ecsq", "Expected 'predict:0.5' first"),
        ("ef+ef21+int8", "Expected 'ef21' first"),
        ("ef:1.1+int8", r"0 <= decay <= 1, got 1.1 \(ef.decay\)"),
        ("ef:decoy=1+int8", "Unknown option 'decoy' of 'ef'. Did you mean 'decay'"),
        ("topk:0", r"0 < density <= 1, got 0.0 \(topk.density\)"),
        ("topk:nan", "0 < density <= 1, got nan"),
        ("topk:dense=1", "Unknown option 'dense' of 'topk'. Did you mean 'density'"),
        ("topk:0.1,0.2", "Unknown option '0.2' of 'topk'"),
        ("topk:0.1,density=0.2", "'density' of 'topk' once"),
        ("topk:much", r"Expected a number, got 'much' \(topk.density\)"),
        ("uniform:9", r"bits from 1 to 8, got 9 \(uniform.bits\)"),
        ("uniform:4.0", r"Expected an integer, got '4.0' \(uniform.bits\)"),
        ("uniform:stochastic=yes", "Expected true or false, got 'yes'"),
        ("uniform:per=row", "Expected tensor or channel, got 'row'"),
        ("int8:4", "Unknown option '4' of 'uniform'"),
        ("raw:1", "Expected no options for 'raw', got '1'"),
        ("+".join(["topk"] * 9), "2 to 8 stages"),
        ("raw" * 2000, "at most 4096 characters"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "as JSON"),
        ([], "an 'id'"),
        ({"id": 3}, "an 'id'"),
        ({"id": "topk", "density": "0.1"}, "Expected a number"),
        ({"id": "topk", "density": True}, "Expected a number"),
        ({"id": "uniform", "bits": True}, "Expected an integer"),
        ({"id": "uniform", "stochastic": 1}, "true or false"),
        ({"id": "uniform", "pre": "tensor"}, "Did you mean 'per'"),
        ({"id": "unifrom"}, "Did you mean 'uniform'"),
        ({"id": "chain", "parts": [{"id": "raw"}]}, "2 to 8 stages"),
        ({"id": "chain", "parts": [{"id": "topk"}, {"id": "topk"}]}, "Expected a last stage after 'topk:0.01'"),
        ({"id": "chain", "parts": [{"id": "ef", "parts": [{"id": "raw"}]}, {"id": "raw"}]}, "'ef' stands first"),
        ({"id": "chain", "stages": []}, "only 'parts'"),
        ({"id": "ef", "parts": []}, "one codec inside 'ef'"),
        ({"id": "ef", "decay": 2, "parts": [{"id": "raw"}]}, "0 <= decay <= 1"),
        ({"id": "ef21", "decay": 1, "parts": [{"id": "raw"}]}, "Unknown option 'decay' of 'ef21'"),
        ({"id": "dgc"}, "'parts', a list of codecs, in 'dgc'"),
        ({"id": "ef", "parts": [{"id": "topk"}]}, "Expected a last stage after 'topk:0.01' inside 'ef'"),
        ({"id": "ef", "parts": [{"id": "ef", "parts": [{"id": "raw"}]}]}, "a stage or a chain inside 'ef'"),
    ],
)
def test_refused_json(value: object, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        from_json(value if isinstance(value, str) else json.dumps(value))


def test_ids() -> None:
    assert ids() == (
        "bf16",
        "chain",
        "dgc",
        "dither",
        "ecsq",
        "ef",
        "ef21",
        "fp16",
        "fp8",
        "hadamard",
        "lossless",
        "modular",
        "nf4",
        "nmse",
        "powersgd",
        "predict",
        "qsgd",
        "randomk",
        "raw",
        "rotation",
        "sketch",
        "stc",
        "terngrad",
        "topk",
        "uniform",
    )
    assert ids_of(parse("ef+topk:0.1+int8")) == {"ef", "chain", "topk", "uniform"}
    assert ids_of(parse("int8")) == {"uniform"}


def test_described() -> None:
    rows = {row.id: row for row in describe()}
    assert set(rows) == set(ids()) - {"chain"}
    assert [(o.name, o.default, o.expected) for o in rows["uniform"].options] == [
        ("bits", "8", "an integer"),
        ("stochastic", "false", "true or false"),
        ("per", "tensor", "tensor or channel"),
    ]
    assert rows["uniform"].unbiased == "with stochastic=true"
    assert rows["randomk"].unbiased == "with unbiased=true"
    assert rows["rotation"].unbiased == "with scale=unbiased"
    assert (rows["ecsq"].contractive, rows["terngrad"].contractive) == ("yes", "no")
    assert {name for name, row in rows.items() if row.summable == "yes"} == {
        "hadamard",
        "modular",
        "randomk",
        "raw",
        "sketch",
    }
    assert {name for name, row in rows.items() if row.stateful == "yes"} == {"dgc", "ef", "ef21", "powersgd"}
    assert all(row.about.endswith(".") for row in rows.values())


def test_only_linear_chains_may_be_summed() -> None:
    fed_back = "ef+randomk:0.1,unbiased=false"
    texts = ("randomk:0.1", "randomk:0.1+int8", "topk:0.1", fed_back, "ef21+raw", "int8", "raw")
    assert [t for t in texts if parse(t).commutes_with_sum] == ["randomk:0.1", fed_back, "raw"]


def test_an_unfinished_codec_seals_nothing() -> None:
    model = zeros(Spec(()))
    with pytest.raises(CodecError, match=r"finishes the job, got 'topk:0.01'"):
        seal(TopK(), model, {}, None, Stream(0))  # type: ignore[arg-type]
