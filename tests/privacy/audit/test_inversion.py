"""An update of one example gives it away; an update of nothing but noise does not."""

from __future__ import annotations

import numpy as np
import torch

from fedpress import torch_model
from fedpress.params import Tensors
from fedpress.privacy.audit.inversion import Range, invert
from fedpress.simulations.tasks import load_task


def test_the_gradient_of_one_example_gives_it_away() -> None:
    task = load_task("digits")
    module = torch_model.build(task, 0)
    split = task.data(None).test.take(np.array([3]))  # type: ignore[arg-type]
    loss = torch_model.batch_loss(task, module(torch_model.tensor(split.x)), torch_model.tensor(split.y))
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    update = {n: -0.1 * g.numpy() for (n, _), g in zip(module.named_parameters(), gradients, strict=True)}
    noise = {n: np.random.default_rng(0).normal(size=a.shape).astype(np.float32) for n, a in update.items()}

    def psnr(given: Tensors) -> float:
        found = invert(task, module, given, split.y, (64,), Range(0.0, 1.0), 0, steps=150)
        assert found.shape == (1, 64)
        assert 0 <= found.min() <= found.max() <= 1
        return Range(0.0, 1.0).psnr(float(np.mean((found - split.x) ** 2)))

    assert psnr(update) > 30
    assert psnr(noise) < 12


def test_psnr_is_of_the_range() -> None:
    assert Range(-1.0, 1.0).psnr(0.04) == 20.0
    assert Range(0.0, 0.0).width == 1.0
    assert Range(0.0, 1.0).psnr(0.0) == 100.0
