"""A multilayer perceptron in NumPy: linear layers, ReLU between, softmax cross entropy; forward and backward by
hand.

The layers are read off a model's spec: pairs of ``x.weight`` float32[out, in] and ``x.bias`` float32[out], in the
order in which they apply, which is how torch names an ``nn.Sequential`` of ``nn.Linear``. What such a model computes
is then the same here and there, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PlanError
from fedpress.params import Array, Spec


@dataclass(frozen=True)
class Network:
    """``layers``: the names in front of ``.weight`` and ``.bias``, in order."""

    layers: tuple[str, ...]

    @classmethod
    def of(cls, spec: Spec) -> Network:
        """The network that a spec describes. Raises PlanError for one that is no such perceptron."""
        tensors, layers, width = list(spec), [], None
        for weight, bias in zip(tensors[::2], tensors[1::2], strict=False):
            name = weight.name.removesuffix(".weight")
            fits = len(weight.shape) == 2 and bias.shape == weight.shape[:1] and width in (None, weight.shape[-1])
            if not fits or (weight.name, bias.name) != (f"{name}.weight", f"{name}.bias"):
                break
            layers.append(name)
            width = weight.shape[0]
        if not layers or 2 * len(layers) != len(tensors):
            stranger = tensors[2 * len(layers)] if tensors[2 * len(layers) :] else "no tensors"
            raise PlanError(
                f"Expected linear layers with biases only, got {stranger}: the trainer 'numpy' has no others "
                "(train.trainer)."
            )
        return cls(tuple(layers))

    def forward(self, point: Mapping[str, Any], x: Array) -> list[Array]:
        """What each layer is given, and last what comes out: logits float32[n, classes]."""
        flows = [np.asarray(x, np.float32).reshape(len(x), prod(x.shape[1:]))]
        for i, name in enumerate(self.layers):
            out = flows[-1] @ point[f"{name}.weight"].T + point[f"{name}.bias"]
            flows.append(out if i == len(self.layers) - 1 else np.maximum(out, np.float32(0)))
        return flows

    def loss(self, logits: Array, y: Array) -> float:
        """Mean cross entropy."""
        return float(np.mean(_log_sum_exp(logits) - logits[np.arange(len(y)), y]))

    def backward(
        self, point: Mapping[str, Any], flows: list[Array], y: NDArray[np.int64], pull: Array | None = None
    ) -> dict[str, Array]:
        """Gradients of the mean cross entropy; ``pull``: a further gradient with respect to the last layer's input."""
        pushes = self.pushes(point, flows, y, pull, 1 / len(y))
        found: dict[str, Array] = {}
        for name, flow, push in zip(self.layers, flows, pushes, strict=False):
            found[f"{name}.weight"], found[f"{name}.bias"] = push.T @ flow, push.sum(axis=0)
        return found

    def pushes(
        self,
        point: Mapping[str, Any],
        flows: list[Array],
        y: NDArray[np.int64],
        pull: Array | None = None,
        weight: float = 1.0,
    ) -> list[Array]:
        """The gradient with respect to what each layer gives, float32[n, width], of each example's cross entropy times
        ``weight``. An example's gradient of a layer is the outer product of its row here and in ``flows``."""
        logits = flows[-1]
        push = np.exp(logits - _log_sum_exp(logits)[:, None])
        push[np.arange(len(y)), y] -= np.float32(1)
        push *= np.float32(weight)
        found: list[Array] = []
        for i in reversed(range(len(self.layers))):
            found.append(push)
            if i:
                push = push @ point[f"{self.layers[i]}.weight"]
                if pull is not None and i == len(self.layers) - 1:
                    push += pull
                push *= flows[i] > 0
        return found[::-1]


def _log_sum_exp(logits: Array) -> Array:
    top = logits.max(axis=1, keepdims=True)
    found: Array = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return found
