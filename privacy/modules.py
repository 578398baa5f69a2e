"""Which torch modules can be trained privately, and how those that cannot are mended. Needs torch and opacus.

A layer must treat examples apart and carry nothing of them out but by its gradients: no statistics over a batch, no
buffers. ``fixed`` is Opacus' ``ModuleValidator.fix`` with three gaps closed. It passes over layers without parameters
(``affine=False``). It leaves the running statistics of instance normalisation behind. And it gives every channel of up
to 32 a group of its own, which is right for images; of a BatchNorm1d behind a linear layer it would leave constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from fedpress.errors import MissingExtra, PrivacyError
from fedpress.task import Task

try:
    from opacus.validators import ModuleValidator
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Local privacy", "torch") from error

#: What to put in the place of a layer whose examples see each other, or that Opacus cannot differentiate per example.
REMEDIES: Final[Mapping[str, str]] = {
    "BatchNorm1d": "GroupNorm or LayerNorm",
    "BatchNorm2d": "GroupNorm",
    "BatchNorm3d": "GroupNorm",
    "SyncBatchNorm": "GroupNorm",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "MultiheadAttention": "opacus.layers.DPMultiheadAttention",
    "InstanceNorm1d": "the same with track_running_stats=False",
    "InstanceNorm2d": "the same with track_running_stats=False",
    "InstanceNorm3d": "the same with track_running_stats=False",
}


def check(module: torch.nn.Module) -> None:
    """Raise PrivacyError, naming the layer and what to use instead, for a module that cannot be trained privately."""
    module.train()
    for name, layer in module.named_modules():
        validate = ModuleValidator.VALIDATORS.get(type(layer))
        trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
        buffers = [f"{name}.{buffer}" for buffer, _ in layer.named_buffers(recurse=False)] if trainable else []
        if buffers or (validate is not None and validate(layer)):
            kind = type(layer).__name__
            remedy = REMEDIES.get(kind, "a layer without buffers" if buffers else "a layer that treats examples apart")
            switch = ", or set privacy.fix_modules = true to have it replaced" if _fixable(layer) else ""
            raise PrivacyError(
                f"Layer '{name}' ({kind}) cannot be trained with local privacy: use {remedy} "
                f"in the task's model(){switch} (privacy.mode)."
            )


def fixed(task: Task) -> Task:
    """``task`` with a model whose layers that cannot be trained privately are replaced, where Opacus knows how."""

    def model() -> Any:
        return _mended(task.model())

    return replace(task, model=model)


def _mended(module: Any) -> Any:
    """``module``, changed in place; another one if it is itself such a layer."""
    if not isinstance(module, torch.nn.Module):
        return module  # whoever builds it says so
    for name, child in module.named_children():
        setattr(module, name, _mended(child))
    return _replaced(module) if _fixable(module) and ModuleValidator.VALIDATORS[type(module)](module) else module


def _replaced(layer: torch.nn.Module) -> torch.nn.Module:
    wishes = {"num_groups": 1} if isinstance(layer, torch.nn.BatchNorm1d) else {}
    new: torch.nn.Module = ModuleValidator.FIXERS[type(layer)](layer, **wishes)
    for name, _ in list(new.named_buffers(recurse=False)):
        new.register_buffer(name, None)
    return new


def _fixable(layer: torch.nn.Module) -> bool:
    return type(layer) in ModuleValidator.FIXERS and type(layer) in ModuleValidator.VALIDATORS
