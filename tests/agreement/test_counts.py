"""The cost half counts exactly what the accuracy half does: conversions, reads, activations and writes."""

from __future__ import annotations

import pytest
import torch

from ohmformer.arch.placement import place
from ohmformer.array.counts import counting
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.spec import KVClip
from ohmformer.nn.convert import convert
from ohmformer.schema import replace
from ohmformer.streams import samples
from ohmformer.tasks.vit import VisionTransformer
from ohmformer.workload.shapes import Transformer, shapes

BASE = load("clipformer_tcad_2024_adc8")
assert isinstance(BASE, Accelerator)
TABLE = Transformer(
    title="small", kind="encoder", layers=2, width=24, heads=2, hidden=40, patch=16, extra_tokens=1, head=10, tokens=10
)


def offset(hardware: Accelerator) -> Accelerator:
    for role in ("projection", "attention"):
        hardware = replace(hardware, f"{role}.array.encoding", "offset")
    return hardware


@pytest.mark.parametrize(
    ("clip", "encoding"), [(None, "differential"), (None, "offset"), (KVClip(alpha=2.0, beta=0.25), "differential")]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_both_halves_count_the_same_events(clip: KVClip | None, encoding: str, batch: int) -> None:
    hardware = BASE if encoding == "differential" else offset(BASE)
    for role in ("projection", "attention"):
        for name, size in (("rows", 16), ("columns", 12)):
            hardware = replace(hardware, f"{role}.array.{name}", size)
    torch.manual_seed(0)
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    images = torch.randn(batch, 1, 12, 12)
    converted = convert(model, hardware, sample=images, clip=clip, level="cell")
    with torch.no_grad(), samples(range(batch)):
        converted(images)  # writes the weights
        with counting() as counted:
            converted(images)
    assert place(shapes(TABLE, batch=batch), hardware, clip=clip).counts == counted


def test_a_clip_that_the_accuracy_half_refuses_has_no_cost_either() -> None:
    with pytest.raises(BadInput, match="'offset' array stores zero in the middle of its range"):
        place(shapes(TABLE), offset(BASE), clip=KVClip())
