"""Rotated inputs of static weights: exact on ideal hardware, and better where outliers set the range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, Rule, WeightMitigation
from ohmformer.mitigation.hadamard import rotate
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.weight import WeightOperand
from tests.nn.models import Decoder, Encoder, vit

ROTATED = WeightMitigation(rotate=True)
HARDWARE = of.load("clipformer_tcad_2024")
QUIET = of.replace(of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0), "projection", {
    "kind": "crossbar", "array": of.replace(HARDWARE.projection.array, "cell.write_noise.gamma", 0.0),
})  # fmt: skip
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))
VECTORS = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))


class Mixed(nn.Module):
    """A grouped convolution, a matrix multiplied from the other side, and a layer of an odd width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(12, 14, 3, groups=2, padding=1)
        self.transposed = nn.Parameter(torch.randn(14, 9) / 4)
        self.last = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.conv(x.transpose(1, 2)).transpose(1, 2) @ self.transposed)
        return found


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), of.samples(range(len(x))):
        y: Tensor = model(x)
    return y


def statics(model: nn.Module) -> dict[str, WeightOperand]:
    return {o.name: o for o in crossbars(model).operands if isinstance(o, WeightOperand)}


MODELS = {
    "vit, convolution and widths that are no power of two": (vit, IMAGES),
    "decoder with a tied head": (Decoder, TOKENS),
    "nn.MultiheadAttention": (Encoder, VECTORS),
    "groups, products from the other side": (Mixed, VECTORS[..., :12]),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_exact_on_ideal_hardware(name: str) -> None:
    make, x = MODELS[name]
    model = make().eval()
    converted = of.convert(model, QUIET, sample=x, weights=ROTATED)
    assert all(operand.rotated for operand in statics(converted).values())
    with of.without_quantizers(converted):
        found = outputs(converted, x)
    torch.testing.assert_close(found, outputs(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["cell", "array"])
def test_levels_agree_on_rotated_weights(level: Any) -> None:
    found = outputs(of.convert(vit(), HARDWARE, sample=IMAGES, weights=ROTATED, level=level), IMAGES)
    noise = outputs(of.convert(vit(), HARDWARE, sample=IMAGES, weights=ROTATED, level="noise"), IMAGES)
    torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)


def test_outliers_of_inputs_no_longer_set_the_range() -> None:
    """One input channel is 200 times the others: with one range the others have fewer than one code left."""
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(96, 32)), torch.randn(4, 10, 96)
    x[..., 7] *= 200
    with torch.no_grad():
        layer[0].weight[:, 7] *= 0.005
    clean = outputs(layer, x)
    errors = []
    for weights in (None, ROTATED):
        converted = of.convert(layer, QUIET, sample=x, weights=weights)
        errors.append(float((outputs(converted, x) - clean).norm() / clean.norm()))
        operand = statics(converted)["0"]
        seen = rotate(x) if weights else x
        torch.testing.assert_close(operand.x_range, seen.abs().amax())
    assert errors[1] < errors[0] / 3


def test_outliers_of_weights_no_longer_set_the_range() -> None:
    """Noise that is a share of the range: an outlying weight that sets the range costs accuracy everywhere."""
    uniform = {"kind": "uniform", "sigma": 0.02}
    hardware = of.replace(HARDWARE, "projection.array.cell.write_noise", uniform)
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(128, 32)), torch.randn(4, 10, 128)
    with torch.no_grad():
        layer[0].weight[3, 5] = 40 * layer[0].weight.std()
    clean = outputs(layer, x)
    errors = [
        float((outputs(of.convert(layer, hardware, sample=x, weights=weights), x) - clean).norm() / clean.norm())
        for weights in (None, ROTATED)
    ]
    assert errors[1] < errors[0] / 2


def test_gradients_are_those_of_the_product_without_rotation() -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(12, 7)), torch.randn(2, 5, 12, requires_grad=True)
    converted = of.convert(layer, QUIET, sample=x.detach(), weights=ROTATED)
    found = []
    for model in (layer, converted):
        layer.zero_grad()
        x.grad = None
        with of.samples(range(2)), of.without_quantizers(converted):
            model(x).square().sum().backward()
        assert x.grad is not None
        assert layer[0].weight.grad is not None
        found.append((x.grad.clone(), layer[0].weight.grad.clone()))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
def test_changed_weights_are_written_again() -> None:
    model = vit()
    converted = of.convert(model, QUIET, sample=IMAGES, weights=ROTATED)
    before = outputs(converted, IMAGES)
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.head.bias.mul_(2)
    torch.testing.assert_close(outputs(converted, IMAGES), 2 * before, rtol=1e-3, atol=1e-4)


def test_rules_come_before_what_holds_for_the_model() -> None:
    whole = WeightMitigation(rotate=True, scale="column", percentile=99.0)
    rules = {"head": Rule(rotate=False, scale="tensor"), "blocks.0.attn.K": Rule(percentile=98.0)}
    converted = of.convert(vit(), HARDWARE, sample=IMAGES, weights=whole, rules=rules)
    found = statics(converted)
    assert (found["head"].rotated, found["head"].array.scale, found["head"].array.percentile) == (False, "tensor", 99.0)
    other = found["blocks.1.mlp.0"]
    assert (other.rotated, other.array.scale, other.array.percentile) == (True, "column", 99.0)
    keys = [o for o in crossbars(converted).operands if o.name == "blocks.1.attn.K"]
    assert (keys[0].array.scale, keys[0].array.percentile) == ("tensor", 100.0)
    some = of.convert(vit(), HARDWARE, sample=IMAGES, rules={"blocks.*.mlp.*": Rule(rotate=True)})
    assert {name for name, operand in statics(some).items() if operand.rotated} == {
        f"blocks.{block}.mlp.{layer}" for block in range(2) for layer in (0, 2)
    }


def test_tied_layers_that_are_rotated_apart_have_cells_of_their_own() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.two(self.one(x))
            return found

    for rules, apart in (({}, False), ({"two": Rule(rotate=False)}, True)):
        model = Tied().eval()
        converted = of.convert(model, QUIET, sample=VECTORS, weights=ROTATED, rules=rules)
        found = statics(converted)
        assert (found["one"].cells is not found["two"].cells) == apart
        with of.without_quantizers(converted):
            torch.testing.assert_close(outputs(converted, VECTORS), outputs(model, VECTORS), rtol=1e-4, atol=1e-5)


def test_only_memristive_weights_are_conditioned_for_the_whole_model() -> None:
    found = statics(of.convert(vit(), of.load("xformer_tvlsi_2023"), sample=IMAGES, weights=ROTATED))
    assert all(operand.rotated for operand in found.values())
    sram = of.convert(vit(), of.load("sram_iso_area"), sample=IMAGES, weights=ROTATED)
    assert not any(operand.rotated for operand in statics(sram).values())


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"blocks.*.attn.K": Rule(rotate=True)}, "no static weights on crossbars"),
        ({"head": {"on": "digital", "rotate": True}}, "leave one of them out"),
    ],
)
def test_rotations_of_nothing_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        of.convert(vit(), HARDWARE, sample=IMAGES, rules=rules)


def test_a_switch_of_another_type_is_refused() -> None:
    with pytest.raises(BadInput, match="weights is a"):
        of.convert(vit(), HARDWARE, sample=IMAGES, weights=True)  # type: ignore[arg-type]


def test_half_precision() -> None:
    model = vit().to(torch.bfloat16)
    x = IMAGES.to(torch.bfloat16)
    converted = of.convert(model, QUIET, sample=x, weights=ROTATED)
    found, clean = outputs(converted, x), outputs(model, x)
    assert found.dtype == torch.bfloat16
    assert float((found - clean).norm() / clean.norm()) < 0.1


def test_restored_to_the_bit(tmp_path: Path) -> None:
    whole = WeightMitigation(rotate=True, scale="column", percentile=99.9)
    converted = of.convert(vit(), HARDWARE, sample=IMAGES, weights=whole, rules={"head": Rule(rotate=False)})
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(vit(seed=9), tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, IMAGES), outputs(converted, IMAGES))
    assert crossbars(restored).weights == whole
