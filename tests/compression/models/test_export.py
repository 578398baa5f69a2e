from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fedpress.compression.models.check import predict, run, same_outputs
from fedpress.compression.models.export import OPSET, export, stamp
from fedpress.errors import TaskError

KINDS = ("convolutional", "recurrent")


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_does_what_the_module_does_at_any_batch_size(
    kind: str, files: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    module, inputs = request.getfixturevalue(kind)
    for n in (1, 3, len(inputs)):
        same_outputs(predict(module, inputs[:n]), run(files[kind], inputs[:n]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_says_what_it_is_and_nothing_about_where_it_was_made(kind: str, files: dict[str, bytes]) -> None:
    model = onnx.load_from_string(files[kind])
    assert [p.key for p in model.metadata_props] == ["fedpress.task"]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert str(Path(torch.__file__).parent).encode() not in files[kind]
    assert Path(__file__).parent.name.encode() + b"/" not in files[kind]


def test_a_stamp_replaces_the_metadata_and_nothing_else(files: dict[str, bytes]) -> None:
    before = files["convolutional"]
    after = stamp(before, {"a": "1"})
    assert {p.key: p.value for p in onnx.load_from_string(after).metadata_props} == {"a": "1"}
    assert onnx.load_from_string(after).graph == onnx.load_from_string(before).graph


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    inputs = np.ones((5, 4), np.float32)
    file = export(module, inputs, {})
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    same_outputs(predict(module, inputs), run(file, inputs))


class OneBatch(nn.Module):
    """Works on two examples only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 2, 2).sum(2)


class TwoRows(nn.Module):
    """Takes any batch and gives two rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[0], x[1]])


class Branching(nn.Module):
    """Its graph depends on the numbers that go in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 3 else x - 1


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (OneBatch(), "OneBatch for a batch of any size: its 'input'"),
        (TwoRows(), "TwoRows for a batch of any size: its 'output'"),
        (Branching(), "Branching to ONNX: .*data-dependent"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(module: nn.Module, why: str) -> None:
    with pytest.raises(TaskError, match=why):
        export(module, np.ones((2, 4), np.float32), {})
