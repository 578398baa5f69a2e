"""MOON's contrastive term: its closed gradient is autograd's, on NumPy and torch arrays alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.rules.moon import contrastive
from fedpress.compression.stream import Stream

SHAPES = st.sampled_from([(1, 3), (5, 8), (4, 2, 3)])


def drawn(seed: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    rng = Stream(seed)
    return [torch.from_numpy(rng.uniform(int(np.prod(shape))).reshape(shape) - np.float32(0.5)) for _ in range(3)]


@settings(deadline=None)
@given(st.integers(0, 2**32), SHAPES, st.sampled_from([0.0, 1.0, 5.0]), st.sampled_from([0.05, 0.5, 2.0]))
def test_it_is_autograds(seed: int, shape: tuple[int, ...], mu: float, temperature: float) -> None:
    z, near, far = (v.double() + 0.6 for v in drawn(seed, shape))
    z.requires_grad_(True)
    cosine = torch.nn.functional.cosine_similarity
    logits = torch.stack([cosine(z.flatten(1), o.flatten(1)) for o in (near, far)], 1) / temperature
    loss = mu * torch.nn.functional.cross_entropy(logits, torch.zeros(len(z), dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    found = contrastive(mu, temperature)(z.detach(), near, far)
    assert z.grad is not None
    torch.testing.assert_close(found, z.grad, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**32), SHAPES)
def test_both_kinds_of_array_give_the_same(seed: int, shape: tuple[int, ...]) -> None:
    tensors = drawn(seed, shape)
    gradient = contrastive(1.0, 0.5)
    found = gradient(*(v.numpy() for v in tensors))
    assert (found.dtype, found.shape) == (np.float32, shape)
    np.testing.assert_allclose(found, gradient(*tensors).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_representations_without_direction_do_no_harm(temperature: float) -> None:
    gradient = contrastive(1.0, temperature)
    nothing, one = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    for z, near, far in ((nothing, one, one), (one, nothing, one), (one, one, nothing), (nothing, nothing, nothing)):
        assert np.isfinite(gradient(z, near, far)).all()
