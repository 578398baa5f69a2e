"""Canary gradients: the device's DP-SGD keeps its claim; with half the noise, or without its clip, it is found."""

from __future__ import annotations

from typing import Any

import pytest

from fedpress.compression.stream import Stream
from fedpress.privacy.audit.gradients import Train, audit, dp_sgd
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb

PRIVACY = pb.LocalPrivacy(noise_multiplier=1.0, clip_norm=0.7, delta=1e-5)


def altered(**changes: float | str) -> Train:
    """DP-SGD under other parameters than it says."""

    def train(
        module: Any, optimizer: Any, loss_of: Any, n: int, training: Any, said: Any, noise: Any, seen: Any
    ) -> Any:
        other = pb.LocalPrivacy()
        other.CopyFrom(said)
        for key, value in changes.items():
            setattr(other, key, value)
        return dp_sgd(module, optimizer, loss_of, n, training, other, noise, seen)

    return train


@pytest.mark.parametrize("clipping", ["flat", "per-layer", "ghost"])
def test_dp_sgd_keeps_its_claim(clipping: str) -> None:
    verdict = audit(PRIVACY, Noise.seeded(Stream(1)), altered(clipping=clipping), trials=1000)
    assert not verdict.broken
    assert verdict.proven > 0.5 * verdict.claimed


@pytest.mark.parametrize(
    "broken",
    [
        altered(noise_multiplier=0.5),
        altered(clip_norm=1e6, noise_multiplier=0.7e-6),
        altered(clipping="per-layer", clip_norm=0.7 * 2**0.5, noise_multiplier=2**-0.5),
    ],
    ids=["half the noise", "no clip", "layers clipped apart"],
)
def test_what_is_broken_is_found(broken: Train) -> None:
    assert audit(PRIVACY, Noise.seeded(Stream(1)), broken, trials=1200).broken
