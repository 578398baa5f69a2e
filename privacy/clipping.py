"""Noisy gradients of a torch module: per-example clipping by Opacus, in its three ways. Needs torch and opacus.

    flat        one norm per example over all tensors; a gradient per example is held in memory
    per-layer   one norm per example and tensor, each cut to clip_norm / sqrt(tensors)
    ghost       as flat, from norms alone and a second pass with the losses weighted (Li et al. 2022): less memory

From us: the noise's source, empty draws, parameters that a model does not use, and a check that ghost norms are right:
Opacus has a formula per kind of layer, and one that does not fit (a weight used twice, inputs of a shape that it does
not expect) would break the promise in silence. So once per module the norms of a single example are held against its
gradient, which the same pass gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import torch

from fedpress.errors import MissingExtra, PrivacyError
from fedpress.privacy.dpsgd import FLAT, GHOST, PER_LAYER, Mechanism

try:
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping, DPPerLayerOptimizer
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Local privacy", "torch") from error

#: Relative difference by which a ghost norm may miss the norm of the gradient.
_MISS: Final = 1e-3
_PROVEN: Final[WeakSet[torch.nn.Module]] = WeakSet()
_HUNG_ON: Final = ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample", "_norm_sample")


class Objective(NamedTuple):
    """What is minimised, as functions of a module and indices of examples: the mean loss, and the loss of each [n]."""

    mean: Callable[[Any, torch.Tensor], torch.Tensor]
    each: Callable[[Any, torch.Tensor], torch.Tensor]


class _Clipping:
    """An Opacus optimiser that is never stepped: ``gradient`` leaves its result in the parameters' ``grad``."""

    params: list[torch.nn.Parameter]

    def __init__(self, module: torch.nn.Module, parameters: list[torch.nn.Parameter], mechanism: Mechanism) -> None:
        super().__init__(  # type: ignore[call-arg]  # Opacus', by the order of bases
            torch.optim.SGD(parameters),
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=self._bounds(mechanism, len(parameters)),
            expected_batch_size=mechanism.mean_batch,
        )
        self._mechanism, self._plain = mechanism, module
        self.wrapped = self._wrap(module, mechanism)

    def gradient(self, objective: Objective, rows: torch.Tensor) -> float:
        """Set every parameter's ``grad`` to the noisy mean of the clipped gradients; returns the sum of the losses."""
        for p in self.params:
            p.grad = None
        self._clear()
        total = self._backward(objective, rows) if len(rows) else self._nothing()
        self._finish()
        return total

    def add_noise(self) -> None:
        """``grad = sum of clipped gradients + noise``, per tensor."""
        for p in self.params:
            drawn = torch.from_numpy(self._mechanism.drawn_noise(p.numel()))
            p.grad = p.summed_grad.reshape(p.shape) + drawn.to(p).reshape(p.shape)  # type: ignore[attr-defined]

    def _bounds(self, mechanism: Mechanism, tensors: int) -> Any:  # noqa: ARG002 - some need the number
        return mechanism.clip_norm

    def _wrap(self, module: torch.nn.Module, mechanism: Mechanism) -> Any:  # noqa: ARG002 - some need the bound
        return GradSampleModule(module)

    def _clear(self) -> None:
        self.zero_grad(set_to_none=True)  # type: ignore[attr-defined]

    def _finish(self) -> None:
        self.pre_step()  # type: ignore[attr-defined]

    def _backward(self, objective: Objective, rows: torch.Tensor) -> float:
        loss = objective.mean(self.wrapped, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        for p in self.params:
            if p.grad_sample is None:  # type: ignore[attr-defined]  # the model does not use it
                p.grad_sample = p.new_zeros((len(rows), *p.shape))  # type: ignore[attr-defined]
        return float(loss.detach()) * len(rows)

    def _nothing(self) -> float:
        """An empty draw is a step like any other: it adds noise to a sum of no gradients."""
        for p in self.params:
            p.grad_sample = p.new_zeros((0, *p.shape))  # type: ignore[attr-defined]
        return 0.0


class _Flat(_Clipping, DPOptimizer):  # type: ignore[misc]  # opacus has no types
    pass


class _PerLayer(_Clipping, DPPerLayerOptimizer):  # type: ignore[misc]
    def _bounds(self, mechanism: Mechanism, tensors: int) -> Any:
        return [mechanism.bound(tensors)] * tensors

    def _finish(self) -> None:
        for p in self.params:  # Opacus takes the norm over all examples where a tensor is a single number
            p.grad_sample = p.grad_sample.reshape(-1, p.numel())  # type: ignore[attr-defined]
        super()._finish()


class _Ghost(_Clipping, DPOptimizerFastGradientClipping):  # type: ignore[misc]
    def _wrap(self, module: torch.nn.Module, mechanism: Mechanism) -> Any:
        return GradSampleModuleFastGradientClipping(module, max_grad_norm=mechanism.clip_norm)

    def _backward(self, objective: Objective, rows: torch.Tensor) -> float:
        if self._plain not in _PROVEN:
            self._norms(objective, rows[:1])
            self._prove()
            _PROVEN.add(self._plain)
        losses = self._norms(objective, rows)
        shares = self.wrapped.get_clipping_coef()
        for p in self.params:
            p.grad = None
        self.wrapped.disable_hooks()
        (shares * losses).sum().backward()
        self.wrapped.enable_hooks()
        for p in self.params:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        return float(losses.detach().sum())

    def _nothing(self) -> float:
        for p in self.params:
            p.grad = torch.zeros_like(p)
        return 0.0

    def _norms(self, objective: Objective, rows: torch.Tensor) -> torch.Tensor:
        """A first pass, for the norm of each example's gradient of each tensor; returns the losses."""
        for p in self.params:
            p.grad = None
            if hasattr(p, "_norm_sample"):
                del p._norm_sample
        try:
            losses = objective.each(self.wrapped, rows)
        except NotImplementedError as error:  # Opacus, of a weight used twice; it does not say which
            twice = [p for p in self.params if p._forward_counter > 1]  # type: ignore[attr-defined]
            if not twice:
                raise
            raise self._impossible(twice[0]) from error
        losses.mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        for p in self.params:
            if p.grad is None:  # the model does not use it
                p._norm_sample = p.new_zeros(len(rows))  # type: ignore[attr-defined]
            elif not hasattr(p, "_norm_sample"):
                raise self._impossible(p)
        return losses

    def _prove(self) -> None:
        """Raise PrivacyError if the norms of a single example are not those of its gradient."""
        for p in self.params:
            true = 0.0 if p.grad is None else float(p.grad.norm())
            if abs(float(p._norm_sample[0]) - true) > _MISS * max(true, 1e-6):  # type: ignore[attr-defined]
                raise self._impossible(p)

    def _impossible(self, parameter: torch.nn.Parameter) -> PrivacyError:
        name = next(n for n, p in self._plain.named_parameters() if p is parameter)
        layer = self._plain.get_submodule(name.rpartition(".")[0])
        return PrivacyError(
            f"Layer '{name.rpartition('.')[0]}' ({type(layer).__name__}) has no ghost norms, as Opacus computes them "
            "(is it used twice, or on unusual shapes?): use privacy.clipping = 'flat' (privacy.clipping)."
        )


_WAYS: Final[dict[str, Callable[..., Any]]] = {FLAT: _Flat, PER_LAYER: _PerLayer, GHOST: _Ghost}


@contextmanager
def clipping(
    module: torch.nn.Module, parameters: list[torch.nn.Parameter], mechanism: Mechanism
) -> Iterator[Callable[[Objective, torch.Tensor], float]]:
    """``gradient(objective, rows)``: sets the ``grad`` of ``parameters`` to the noisy mean of the clipped gradients of
    the examples ``rows``, returns the sum of their losses. All that Opacus hangs on the module is taken off again."""
    with warnings.catch_warnings():
        # torch says that the first layer's hook sees no gradient of the input. Opacus needs none there.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        way = _WAYS[mechanism.clipping](module, parameters, mechanism)
        try:
            yield way.gradient
        finally:
            way.wrapped.to_standard_module()
            for p in module.parameters():
                for name in _HUNG_ON:
                    if hasattr(p, name):
                        delattr(p, name)
            for layer in module.modules():
                for name in ("activations", "max_batch_len"):
                    if hasattr(layer, name):  # a pass that was broken off
                        delattr(layer, name)
