"""The cost half counts exactly what the accuracy half does: conversions, reads, activations and writes."""

from __future__ import annotations

import pytest
import torch

from ohmformer.arch.placement import place
from ohmformer.array.counts import counting
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.spec import KVClip
from ohmformer.nn.convert import convert
from ohmformer.nn.trace import trace
from ohmformer.schema import replace
from ohmformer.streams import samples
from ohmformer.tasks.data import load_task
from ohmformer.tasks.models import load_model
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


CLIP = KVClip(alpha=2.0, beta=0.25)


@pytest.mark.parametrize(
    ("clip", "encoding", "base"),
    [
        (None, "differential", None),
        (None, "offset", None),
        (CLIP, "differential", None),
        (CLIP, "differential", 1),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_both_halves_count_the_same_events(clip: KVClip | None, encoding: str, base: int | None, batch: int) -> None:
    hardware = BASE if encoding == "differential" else offset(BASE)
    for role in ("projection", "attention"):
        hardware = replace(hardware, f"{role}.array.slice_base", base)
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


PLATFORMS = ("xformer_tvlsi_2023", "nvm_ideal", "puma_asplos_2019", "sram_iso_area", "isaac_isca_2016", "gtx_1060")


def small_arrays(hardware: Accelerator) -> Accelerator:
    """Arrays that a small model fills in part, and needs several of."""
    engines = {"projection": hardware.projection, "attention.key": hardware.attention.key}
    engines["attention.value"] = hardware.attention.value
    for role, engine in engines.items():
        for name, size in (("rows", 16), ("columns", 12)) if isinstance(engine, ArrayEngine) else ():
            hardware = replace(hardware, f"{role}.array.{name}", size)
    return hardware


def arrays_by_instrument(converted: torch.nn.Module, hardware: Accelerator) -> int:
    """Arrays of weights: how many are read in a cycle of one vector, over all modules."""
    if not isinstance(hardware.projection, ArrayEngine):
        return 0
    found = 0
    for module in converted.modules():
        match module:
            case torch.nn.Linear():
                vector = torch.ones(1, module.in_features)
            case torch.nn.Conv2d():
                vector = torch.ones(1, module.in_channels, *module.kernel_size)
            case _:
                continue
        with counting() as counted, samples(range(1)):
            module(vector)
        found += counted.activations
    return found // hardware.projection.array.cycles()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_both_halves_count_the_same_on_every_platform(platform: str) -> None:
    """X-Former's SRAM stores Q of each sample; lanes and GPUs have no cells at all."""
    batch = 2
    named = load(platform)
    assert isinstance(named, Accelerator)
    hardware = small_arrays(named)
    torch.manual_seed(0)
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    images = torch.randn(batch, 1, 12, 12)
    placed = place(trace(model, images), hardware)
    converted = convert(model, hardware, sample=images, level="cell")
    with torch.no_grad(), samples(range(batch)):
        converted(images)  # writes the weights
        with counting() as counted:
            converted(images)
    assert placed.counts == counted
    with torch.no_grad():
        assert placed.arrays["projection"] == arrays_by_instrument(converted, hardware)
    assert (counted.cell_writes > 0) == isinstance(hardware.attention.key, ArrayEngine)


@pytest.mark.parametrize("platform", ["xformer_tvlsi_2023", "puma_asplos_2019"])
def test_both_halves_count_the_same_for_the_bundled_model(platform: str) -> None:
    model, images = load_model("bundled:fashion-vit"), load_task("bundled:fashion-mnist", limit=1).inputs
    hardware = load(platform)
    assert isinstance(hardware, Accelerator)
    assert isinstance(model, VisionTransformer)
    model.blocks = model.blocks[:2]  # of eight that do the same
    placed = place(trace(model, images), hardware)
    converted = convert(model, hardware, sample=images, level="cell")
    with torch.no_grad(), samples(range(1)):
        converted(images)
        with counting() as counted:
            converted(images)
    assert placed.counts == counted
