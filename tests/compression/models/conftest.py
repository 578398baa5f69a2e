"""A convolutional and a recurrent module, untrained, with inputs of theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402


class Convolutional(nn.Module):
    """float[n, 1, 14, 14] to logits[n, 10], with BatchNorm whose statistics are not the initial ones."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(8 * 36, 10)
        self.body(torch.rand(64, 1, 14, 14))

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


class Recurrent(nn.Module):
    """int[n, 12] to logits[n, 12, 40]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.gru = nn.GRU(16, 64, batch_first=True)
        self.head = nn.Linear(64, 40)

    def forward(self, x: Any) -> Any:
        return self.head(self.gru(self.embedding(x))[0])


@pytest.fixture(scope="session")
def convolutional() -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(0)
    return Convolutional().eval(), np.random.default_rng(0).random((64, 1, 14, 14), np.float32)


@pytest.fixture(scope="session")
def recurrent() -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(0)
    return Recurrent().eval(), np.random.default_rng(0).integers(0, 40, (64, 12))


@pytest.fixture(scope="session")
def files(convolutional: Any, recurrent: Any) -> dict[str, bytes]:
    """Both, exported once."""
    from fedpress.compression.models.export import export

    return {
        "convolutional": export(*convolutional, {"fedpress.task": "pictures"}),
        "recurrent": export(*recurrent, {"fedpress.task": "words"}),
    }
