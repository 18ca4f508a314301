"""The cost half counts exactly what the accuracy half does: conversions, reads, activations and writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ohmformer.array.event_counter import counting
from ohmformer.cost.placement import place
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.models.load import load_model
from ohmformer.nn.calibration.calibrate import set_kv
from ohmformer.nn.convert.convert import convert
from ohmformer.schema import replace
from ohmformer.streams import samples
from ohmformer.tasks.load import load_task
from ohmformer.tracing.trace import trace
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
@pytest.mark.slow
def test_both_halves_count_the_same_events(clip: KVClip | None, encoding: str, base: int | None, batch: int) -> None:
    hardware = BASE if encoding == "differential" else offset(BASE)
    for role in ("projection", "attention"):
        hardware = replace(hardware, f"{role}.array.radix", base)
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


@pytest.mark.slow
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


OTHER = replace(replace(BASE.projection.array, "rows", 8), "bits_per_cell", 1)  # type: ignore[union-attr]
RULES: dict[str, dict[str, Any]] = {
    "arrays of their own": {"blocks.0.mlp.*": OTHER, "blocks.1.attn.K": OTHER, "head": None},
    "another engine": {"blocks.0.attn.V": "attention.key", "*.proj": "attention.value", "*.1.attn.K": "projection"},
    "Q is written": {"blocks.1.attn.K": Rule(write="left"), "blocks.0.attn.*": Rule(write="right", array=OTHER)},
    "clips": {
        "blocks.0.attn.K": Rule(array=OTHER, clip=KVClip(alpha=2.0, beta=0.25)),
        "blocks.0.attn.V": Rule(array=OTHER, clip=(KVClip(alpha=0.0, beta=0.25), KVClip(alpha=0.0, beta=0.5))),
        "blocks.1.attn.V": Rule(array=OTHER, clip=(KVClip(alpha=2.0, beta=0.25), "none")),
        "*": Rule(clip="none"),
    },
}


@pytest.mark.parametrize(
    ("platform", "rules"),
    [
        *((platform, name) for platform in ("clipformer_tcad_2024_adc8", "xformer_tvlsi_2023") for name in RULES),
        ("puma_asplos_2019", "arrays of their own"),
        ("puma_asplos_2019", "another engine"),
    ],
)
def test_both_halves_follow_the_same_rules(platform: str, rules: str) -> None:
    named, chosen = load(platform), RULES[rules]
    assert isinstance(named, Accelerator)
    hardware = replace(small_arrays(named), "projection.array.rows", 30)
    torch.manual_seed(0)
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    images = torch.randn(2, 1, 12, 12)
    placed = place(trace(model, images, rules=chosen), hardware, rules=chosen)
    converted = convert(model, hardware, sample=images, rules=chosen, level="cell")
    with torch.no_grad(), samples(range(2)):
        converted(images)  # writes the weights
        with counting() as counted:
            converted(images)
    assert placed.counts == counted
    assert placed.counts != place(trace(model, images), hardware).counts, "the rules change something"


@pytest.mark.parametrize("clip", [None, KVClip(alpha=0.0, beta=0.25)])
@pytest.mark.parametrize(("base", "redundancy"), [(None, None), (1, None), (1, 2)])
@pytest.mark.slow
def test_both_halves_count_the_same_for_conditioned_k_and_v(
    clip: KVClip | None, base: int | None, redundancy: int | None
) -> None:
    """Without copies no array, cell, write or conversion more; slices that count otherwise may be freed by a clip."""
    named = load("clipformer_tcad_2024_adc8")
    assert isinstance(named, Accelerator)
    hardware = small_arrays(named)
    torch.manual_seed(0)
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    images = torch.randn(2, 1, 12, 12)
    spec = Conditioning(mean=True, basis="balanced", scale="token", radix=base, unbiased=True, redundancy=redundancy)
    work = trace(model, images)
    placed = place(work, hardware, clip=clip, kv=spec)
    converted = convert(model, hardware, sample=images, clip=clip, level="cell")
    set_kv(converted, spec)
    with torch.no_grad(), samples(range(2)):
        converted(images)  # writes the weights
        with counting() as counted:
            converted(images)
    assert placed.counts == counted
    assert (placed.counts == place(work, hardware).counts) == (clip is None and redundancy is None)
    operands = {op.name: spec for op in work.dynamic}
    assert set(operands) == {f"blocks.{i}.attn.{letter}" for i in range(2) for letter in "KV"}
    assert place(work, hardware, clip=clip, kv=operands).energy == pytest.approx(placed.energy), (
        "as `calibrate` names them"
    )


@pytest.mark.parametrize("platform", ["xformer_tvlsi_2023", "puma_asplos_2019"])
@pytest.mark.slow
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


def test_rules_decide_room_area_and_wear() -> None:
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    work = trace(model, torch.randn(1, 1, 12, 12))
    plain = place(work, BASE)
    larger = place(work, BASE, rules={"blocks.*.mlp.*": replace(OTHER, "cost.area", 1e-6)})
    assert larger.tiles == plain.tiles + 2 * 2, "128 arrays of another kind in tiles of their own, in each layer"
    assert larger.area > plain.area
    # arrays of 8 rows for 24 and 40 inputs, eight bits of one cell each, in pairs; before, one of 4 x 2 cells each
    assert larger.arrays["projection"] - plain.arrays["projection"] == 2 * (3 + 5) * 8 * 2 - 2 * 2 * 4 * 2
    shared = replace(replace(BASE, "attention.arrays", "shared"), "attention.array.cell.endurance", 1e6)
    own = place(work, shared, rules={"*.K": shared.attention.key.array})  # type: ignore[union-attr]
    assert {(wear.role, wear.shared, wear.max_writes) for wear in own.wear} == {
        ("attention.key", False, 1.0),
        ("attention.value", True, 2.0),
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"head": replace(OTHER, "cost", None)}, r"rules\['head'\].array.cost: is missing, so these arrays"),
        (
            {"*.K": replace(OTHER, "cell.write_energy", None)},
            r"rules\['\*.K'\].array.cell.write_energy: is missing, so these arrays have no price",
        ),
        ({"blocks.0.attn.qkv": None}, r"rules\['blocks.0.attn.qkv'\]: keeps .* digital, which the workload does not"),
        ({"*.V": Rule(write="left")}, "P would be written for every query, which has no price"),
        ({"*.V": Rule(clip=KVClip(alpha=2.0, beta=0.01))}, r"rules\['\*.V'\]: clip.beta = 0.01"),
    ],
)
def test_rules_without_a_price_are_one_line(rules: dict[str, Any], message: str) -> None:
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=2, mlp_ratio=40 / 24).eval()
    with pytest.raises(BadInput, match=message) as caught:
        place(trace(model, torch.randn(1, 1, 12, 12)), BASE, rules=rules)
    assert "\n" not in str(caught.value)


def test_products_at_the_same_time_are_on_engines_of_one_kind() -> None:
    hardware = load("puma_asplos_2019")
    assert isinstance(hardware, Accelerator)
    with pytest.raises(BadInput, match=r"layers.0.attention.query and other products of its stage on engines of"):
        place(shapes("bert-base", tokens=8), hardware, rules={"*.attention.key": "attention.key"})
