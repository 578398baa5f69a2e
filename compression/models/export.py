"""A torch module as an ONNX file that needs no torch to run: any batch size, opset 18, all weights inside.

torch's exporter (``dynamo=True``, which needs onnxscript) traces the module and folds what it can, BatchNorm into
convolutions included. The file is then cleaned of the tracer's notes: stack traces with the paths of the machine that
exported, which would leak and make a small file 20 to 60 % larger.

Inputs are float32 or int64 (tokens), named ``input``; the result is ``output``.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from fedpress.errors import MissingExtra, TaskError
from fedpress.params import Array

try:
    import onnx
    import onnxscript  # noqa: F401 - torch's exporter fails late and obscurely without it
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Export to ONNX", "ship") from error
try:
    import torch
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Export to ONNX", "torch") from error

from fedpress.torch_model import tensor

#: What the operators of torch's exporter are written in; any other opset is a conversion from it.
OPSET: Final = 18

#: torch's calls to its own deprecated parts, and what its tracer says of recurrent layers. Not a user's to mend.
_NOT_OURS: Final = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (FutureWarning, r"_check_is_size will be removed"),
    (UserWarning, r"The tensor attributes? .* assigned during export"),
)


def export(module: torch.nn.Module, example: Array, metadata: Mapping[str, str]) -> bytes:
    """The module, in evaluation mode, as ONNX bytes. ``example[n, ...]`` gives the input's shape and dtype.

    Raises TaskError if torch cannot export the module, or not with a batch of any size.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    # Two rows, whatever was given: a traced batch of one would be taken for a constant.
    x = tensor(example[:1]).expand(2, *example.shape[1:]).contiguous()
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (x,),
                dynamo=True,
                input_names=["input"],
                output_names=["output"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise TaskError(
            f"torch cannot export {type(module).__name__} to ONNX: {_first_line(error.__cause__ or error)}"
        ) from error
    if program is None:  # pragma: no cover - only of the old exporter
        raise TaskError(f"torch gave no ONNX program for {type(module).__name__}.")
    model = program.model_proto
    for end in (*model.graph.input, *model.graph.output):  # torch makes a constant of what it cannot keep free
        if not end.type.tensor_type.shape.dim[0].HasField("dim_param"):
            raise TaskError(
                f"torch cannot export {type(module).__name__} for a batch of any size: its '{end.name}' came out with "
                f"{end.type.tensor_type.shape.dim[0].dim_value} rows. Look for a reshape with the batch size in it."
            )
    _strip(model)
    onnx.checker.check_model(model)
    return stamp(model.SerializeToString(), metadata)


def stamp(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same model with these metadata in place of any it had (ONNX Runtime: ``get_modelmeta()``)."""
    proto = onnx.load_from_string(model)
    onnx.helper.set_model_props(proto, dict(metadata))
    return bytes(proto.SerializeToString(deterministic=True))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _strip(model: onnx.ModelProto) -> None:
    """Drop notes and doc strings of the model, its graph, nodes and values."""
    graph = model.graph
    parts: tuple[Any, ...] = (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (model, graph, *parts):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own warnings, and without its note that torchvision's operators are not there."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category, message in _NOT_OURS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        registry.setLevel(level)
