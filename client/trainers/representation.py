"""Terms on a torch module's representations: what its last layer is given (MOON's contrast). Needs torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fedpress import torch_model
from fedpress.client.trainers.trainer import Contrast


@contextmanager
def contrasted(module: torch.nn.Module, contrast: Contrast | None) -> Iterator[Callable[[torch.Tensor], Any]]:
    """``pull(x)``, to be called after ``module(x)``: a scalar whose gradient is that of the term; 0.0 without a term.

    A layer is the last one if no module with parameters comes after it in ``named_modules``.
    """
    if contrast is None:
        yield lambda _: 0.0
        return
    others = [copy.deepcopy(module) for _ in contrast.models]
    for other, tensors in zip(others, contrast.models, strict=True):
        torch_model.load(other, tensors)
        other.eval()
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        _last_layer(one).register_forward_pre_hook(lambda _, given, key=key: seen.update({key: given[0]}))
        for key, one in enumerate([module, *others])
    ]

    def pull(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for other in others:
                other(x)
            gradient = contrast.gradient(*(seen[key].detach() for key in range(len(others) + 1)))
        pulled: torch.Tensor = (seen[0] * gradient).sum()
        return pulled

    try:
        yield pull
    finally:
        for hook in hooks:
            hook.remove()


def _last_layer(module: torch.nn.Module) -> torch.nn.Module:
    """The last module that has parameters of its own."""
    return [layer for layer in module.modules() if list(layer.parameters(recurse=False))][-1]
