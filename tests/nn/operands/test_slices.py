"""Models on arrays whose slices count by another base than that of their digits."""

from __future__ import annotations

import pytest
import torch

import ohmformer as of
from ohmformer import KVClip
from ohmformer.nn.convert.handle import without_quantizers
from tests.nn.models import vit

IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def output(base: int | None, *, clip: KVClip | None = None, rounded: bool, gamma: float = 0.0) -> torch.Tensor:
    hardware = of.load("clipformer_tcad_2024")
    hardware = of.replace(hardware, "attention.array.cell.write_noise.gamma", gamma)
    for role in ("projection", "attention"):
        hardware = of.replace(hardware, f"{role}.array.radix", base)
    converted = of.convert(vit(), hardware, sample=IMAGES, clip=clip, level="noise")
    with torch.no_grad(), of.samples([0, 1]):
        if rounded:
            return converted(IMAGES)
        with without_quantizers(converted):
            return converted(IMAGES)


@pytest.mark.parametrize("clip", [None, KVClip()])
@pytest.mark.parametrize("base", [1, 3])
def test_without_quantizers_it_does_not_matter_what_slices_count(base: int, clip: KVClip | None) -> None:
    """One cell holds a whole value then, noise included."""
    for gamma in (0.0, 3.0):
        expected = output(None, clip=clip, rounded=False, gamma=gamma)
        torch.testing.assert_close(output(base, clip=clip, rounded=False, gamma=gamma), expected, rtol=1e-3, atol=1e-4)


def test_fewer_codes_are_coarser() -> None:
    """13 magnitudes instead of 256, beside inputs of 8 bits in both cases."""
    exact = output(None, rounded=False)
    assert torch.equal(output(4, rounded=True), output(None, rounded=True))
    errors = [float((output(base, rounded=True) - exact).norm()) for base in (None, 1)]
    assert errors[1] > 2 * errors[0]
