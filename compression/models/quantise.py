"""An ONNX model in int8: post-training quantisation by ONNX Runtime, no labels and no gradients.

    static    activations' ranges are measured beforehand, on calibration inputs; the graph runs in int8 throughout
              (QuantizeLinear / DequantizeLinear pairs, weights per channel; Jacob et al. 2018). Right for feed-forward
              and convolutional models.
    dynamic   activations' ranges are taken anew at every run. For recurrent models: ONNX Runtime's static quantiser has
              no rule for recurrent layers, and its documentation advises dynamic for them.

Weights that are multiplied in int8 take 7 bits: on x86 without VNNI sums of two 8-bit products saturate in 16 bits, and
the model would answer otherwise than on the next machine.

Which one is a table by operator, and the result says which it was. What either leaves in float (a GRU's weights) is
stored as int8 per channel and dequantised when the model is loaded, so the file is small in every case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np

from fedpress.errors import MissingExtra
from fedpress.params import Array

try:
    import onnx
    from onnxruntime import quantization
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Quantisation of a model", "ship") from error

Method: TypeAlias = Literal["static", "dynamic"]

#: Operators that decide against the default, ``static``.
METHOD_OF: Final[Mapping[str, Method]] = {"GRU": "dynamic", "LSTM": "dynamic", "RNN": "dynamic"}

#: Left in float by ``static``: their scale and shift are one number per channel, which has no per-channel int8.
_FLOAT: Final = frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization"})

#: Calibration inputs in one batch; weights smaller than this many elements stay float, where a scale would not pay.
_BATCH: Final = 32
_WORTH: Final = 256


class Quantised(NamedTuple):
    """An int8 model and how it was made."""

    onnx: bytes
    method: Method


def quantise(model: bytes, calibration: Array) -> Quantised:
    """The model in int8. ``calibration[n, ...]`` are real inputs; their labels are not needed."""
    proto = onnx.load_from_string(model)
    method: Method = next((METHOD_OF[node.op_type] for node in proto.graph.node if node.op_type in METHOD_OF), "static")
    # The exporter has folded constants and inferred shapes already, which is what ONNX Runtime would ask for.
    onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as directory:
        before, after = Path(directory, "before.onnx"), Path(directory, "after.onnx")
        _HOW[method](proto, before, after, calibration.astype(_input_dtype(proto)))
        proto = onnx.load(after)
    _shrink(proto)
    proto.graph.ClearField("value_info")
    proto.ClearField("metadata_props")
    onnx.checker.check_model(proto)
    return Quantised(bytes(proto.SerializeToString(deterministic=True)), method)


def _input_dtype(proto: onnx.ModelProto) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(proto.graph.input[0].type.tensor_type.elem_type)


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Calibration inputs, batch by batch."""

    def __init__(self, inputs: Array) -> None:
        self._batches: Iterator[Array] = (inputs[at : at + _BATCH] for at in range(0, len(inputs), _BATCH))

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by input name, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def _static(proto: onnx.ModelProto, before: Path, after: Path, calibration: Array) -> None:
    onnx.save(proto, before)
    quantization.quantize_static(
        before,
        after,
        _Calibration(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        nodes_to_exclude=[node.name for node in proto.graph.node if node.op_type in _FLOAT],
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
    )


def _dynamic(proto: onnx.ModelProto, before: Path, after: Path, calibration: Array) -> None:  # noqa: ARG001
    proto.graph.ClearField("value_info")  # it names shapes of weights that are about to be transposed
    onnx.save(proto, before)
    quantization.quantize_dynamic(
        before,
        after,
        op_types_to_quantize=["Gather", "MatMul"],  # Gemm is rewritten to MatMul; the rest computes in float
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
    )


_HOW: Final[Mapping[Method, Callable[[onnx.ModelProto, Path, Path, Array], None]]] = {
    "static": _static,
    "dynamic": _dynamic,
}


def _shrink(proto: onnx.ModelProto) -> None:
    """Put int8 and a DequantizeLinear in place of every float weight that is left, symmetric, per channel.

    The channel is the first axis longer than one: rows of a matrix, filters of a convolution, gates of a recurrent
    layer (whose weights are [directions, gates, inputs]).
    """
    graph = proto.graph
    nodes: list[Any] = []
    for weight in [w for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT]:
        values = onnx.numpy_helper.to_array(weight)
        if values.size < _WORTH or sum(d > 1 for d in values.shape) < 2:
            continue
        axis = next(i for i, d in enumerate(values.shape) if d > 1)
        largest = np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis))
        scale = (np.maximum(largest, np.finfo(np.float32).tiny * 127) / 127).astype(np.float32)
        by_row = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        codes = np.clip(np.rint(values / by_row), -127, 127).astype(np.int8)
        name = weight.name
        graph.initializer.remove(weight)
        graph.initializer.append(onnx.numpy_helper.from_array(codes, f"{name}_int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale_int8"))
        nodes.append(
            onnx.helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale_int8"], [name], axis=axis)
        )
    if nodes:
        rest = list(graph.node)
        graph.ClearField("node")
        graph.node.extend([*nodes, *rest])
