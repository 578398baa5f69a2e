from __future__ import annotations

import numpy as np
import onnx
import pytest

from fedpress.compression.models.check import run
from fedpress.compression.models.quantise import quantise

METHODS = {"convolutional": "static", "recurrent": "dynamic"}


@pytest.mark.parametrize("kind", METHODS)
def test_int8_is_small_and_close_by_the_method_of_the_table(
    kind: str, files: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    _, inputs = request.getfixturevalue(kind)
    small, method = quantise(files[kind], inputs)
    assert method == METHODS[kind]
    floats, bytes_ = run(files[kind], inputs), run(small, inputs)
    assert np.abs(floats - bytes_).max() < 0.05 * np.abs(floats).max()
    assert not np.array_equal(floats, bytes_)
    weights = onnx.load_from_string(small).graph.initializer
    matrices = [w for w in weights if sum(d > 1 for d in w.dims) > 1 and np.prod(w.dims) > 255]
    assert {w.data_type for w in matrices} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert {o.domain for o in onnx.load_from_string(small).opset_import} == {""}


def test_a_recurrent_models_weights_take_a_byte_each(files: dict[str, bytes], recurrent: tuple) -> None:
    module, inputs = recurrent
    parameters = sum(p.numel() for p in module.parameters())
    small, _ = quantise(files["recurrent"], inputs)
    assert len(small) < 1.5 * parameters < 4 * parameters < len(files["recurrent"])


def test_the_same_inputs_give_the_same_bytes(files: dict[str, bytes], convolutional: tuple) -> None:
    _, inputs = convolutional
    assert quantise(files["convolutional"], inputs) == quantise(files["convolutional"], inputs.astype(np.float64))
