"""Mitigated static weights: exact on ideal hardware, alike at every level, and refused by name where it cannot be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, Rule, WeightMitigation
from ohmformer.array.residual.spec import Residual
from ohmformer.mitigation.hadamard import rotate
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import Decoder, Encoder, vit
from tests.nn.operands.test_rotation import HARDWARE, IMAGES, QUIET, TOKENS, VECTORS, Mixed, outputs, statics

NOISY = of.replace(HARDWARE, "projection.array.cell.write_noise.sigma", 0.3)
SCALED = WeightMitigation(scaling=0.5)
WHOLE = WeightMitigation(rotate=True, scaling=0.7, scale="column", radix=2, range=0.8, residual=Residual(bits=6))
FED_BACK = WeightMitigation(scaling=0.5, rotate=True, scale="column", radix=2, residual=Residual(feedback=True))
UNBIASED = WeightMitigation(scaling=0.0, scale="column", radix=1, range=0.7, unbiased=True, redundancy=2)
MODELS = {
    "vit": (vit, IMAGES),
    "decoder with a tied head": (Decoder, TOKENS),
    "nn.MultiheadAttention": (Encoder, VECTORS),
    "groups, products from the other side": (Mixed, VECTORS[..., :12]),
}


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("weights", [SCALED, WeightMitigation(rotate=True, scaling=1.0)])
def test_exact_on_ideal_hardware(name: str, weights: WeightMitigation) -> None:
    make, x = MODELS[name]
    model = make().eval()
    converted = of.convert(model, QUIET, sample=x, weights=weights)
    assert all(operand.scaling is not None for operand in statics(converted).values())
    with of.without_quantizers(converted):
        torch.testing.assert_close(outputs(converted, x), outputs(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("weights", [WHOLE, UNBIASED, FED_BACK])
@pytest.mark.slow
def test_levels_agree(name: str, weights: WeightMitigation) -> None:
    make, x = MODELS[name]
    if make is Mixed and weights is FED_BACK:
        return  # a stack of matrices, refused below
    model = make().eval()
    noise, array, cell = (
        outputs(of.convert(model, NOISY, sample=x, weights=weights, level=level), x)
        for level in ("noise", "array", "cell")
    )
    torch.testing.assert_close(array, noise, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cell, noise, rtol=1e-3, atol=1e-3)


def test_factors_and_cells_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(24, 8)).eval(), VECTORS
    w, a = layer[0].weight.detach(), 0.3
    s = x.abs().amax((0, 1)) ** a / w.abs().amax(0) ** (1 - a)
    s = s / s.log().mean().exp()
    mitigation = WeightMitigation(scaling=a, rotate=True, scale="column", range=0.9, radix=1)
    operand = statics(of.convert(layer, QUIET, sample=x, weights=mitigation))["0"]
    torch.testing.assert_close(operand.scaling, s)
    torch.testing.assert_close(operand.x_range, rotate(x / s).abs().amax())
    outputs(converted := of.convert(layer, QUIET, sample=x, weights=mitigation), x)
    written = rotate(w * s)
    unit = 0.9 * written.abs().amax(-1, keepdim=True) / 12  # four slices of up to 3, of equal weight
    held: Any = statics(converted)["0"].cells.cells
    torch.testing.assert_close(held.values, unit * (written / unit).clamp(-12, 12).round(), rtol=1e-4, atol=1e-4)


def test_inputs_that_the_sample_leaves_at_zero_get_no_extreme_factor() -> None:
    layer, x = nn.Sequential(nn.Linear(24, 8)).eval(), VECTORS.clone()
    x[..., :4] = 0
    with torch.no_grad():
        layer[0].weight[:, 5] = 0
    converted = of.convert(layer, QUIET, sample=x, weights=SCALED)
    factors = statics(converted)["0"].scaling
    assert factors is not None
    assert bool(factors.isfinite().all())
    assert float(factors.max() / factors.min()) < 1e4
    torch.testing.assert_close(outputs(converted, x), outputs(layer, x), rtol=0.1, atol=0.05)


class Tied(nn.Module):
    """Two layers with one matrix, whose inputs differ."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(10 * self.one(x))
        return found


def test_tied_layers_share_cells_and_factors_unless_rules_part_them() -> None:
    for rules, apart in (({}, False), ({"two": Rule(weights=WeightMitigation(radix=1))}, True)):
        model = Tied().eval()
        converted = of.convert(model, QUIET, sample=VECTORS, weights=SCALED, rules=rules)
        one, two = statics(converted)["one"], statics(converted)["two"]
        assert (one.cells is not two.cells) == apart
        assert one.scaling is not None
        assert two.scaling is None if apart else torch.equal(two.scaling, one.scaling)
        torch.testing.assert_close(outputs(converted, VECTORS), outputs(model, VECTORS), rtol=0.2, atol=0.6)


def test_rules_come_before_what_holds_for_the_model() -> None:
    rules = {
        "head": Rule(weights=WeightMitigation(radix=1, scaling=0.2), scale="tensor"),
        "blocks.0.*": Rule(rotate=False),
    }
    found = statics(of.convert(vit(), HARDWARE, sample=IMAGES, weights=WHOLE, rules=rules))
    head, first, last = found["head"], found["blocks.0.mlp.0"], found["blocks.1.mlp.0"]
    assert (head.array.radix, head.array.residual, head.array.scale, head.rotated) == (1, None, "tensor", False)
    assert (first.rotated, first.array.residual) == (False, Residual(bits=6))
    assert (last.rotated, last.array.radix, last.array.scale) == (True, 2, "column")
    assert head.scaling is not None


def test_gradients_pass_scaling() -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(24, 7)), VECTORS.clone().requires_grad_()
    converted = of.convert(layer, QUIET, sample=x.detach(), weights=WeightMitigation(scaling=0.5, rotate=True))
    found = []
    for model in (layer, converted):
        layer.zero_grad()
        x.grad = None
        with of.samples(range(3)), of.without_quantizers(converted):
            model(x).square().sum().backward()
        assert x.grad is not None
        assert layer[0].weight.grad is not None
        found.append((x.grad.clone(), layer[0].weight.grad.clone()))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_weights_are_set_later_as_in_the_conversion() -> None:
    at_once = of.convert(vit(), NOISY, sample=IMAGES, weights=WHOLE)
    later = of.convert(vit(), NOISY, sample=IMAGES)
    plain = outputs(later, IMAGES)
    of.set_weights(later, WHOLE)
    assert torch.equal(outputs(later, IMAGES), outputs(at_once, IMAGES))
    assert crossbars(later).weights == WHOLE
    of.set_weights(later, None)
    assert torch.equal(outputs(later, IMAGES), plain)


@pytest.mark.parametrize("weights", [WHOLE, UNBIASED, FED_BACK])
def test_restored_to_the_bit(tmp_path: Path, weights: WeightMitigation) -> None:
    converted = of.convert(vit(), NOISY, sample=IMAGES, weights=weights)
    of.calibrate_ranges(converted, [3 * IMAGES])
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(vit(seed=9), tmp_path / "model.safetensors", sample=IMAGES / 2)
    assert torch.equal(outputs(restored, IMAGES), outputs(converted, IMAGES))


def test_a_state_dict_brings_its_factors() -> None:
    one = of.convert(vit(), NOISY, sample=IMAGES, weights=SCALED)
    two = of.convert(vit(seed=9), NOISY, sample=IMAGES.flip(-1) * 2, weights=SCALED)
    outputs(two, IMAGES)  # its cells are written before
    two.load_state_dict(one.state_dict())
    assert torch.equal(outputs(two, IMAGES), outputs(one, IMAGES))
    plain = of.convert(vit(), NOISY, sample=IMAGES)
    with pytest.raises(RuntimeError, match="scaling"):
        plain.load_state_dict(one.state_dict())


def test_corrections_follow_the_inputs_and_help() -> None:
    """With corrections of errors in later weights, outputs are nearer to those of the original; they are saved."""
    model, noisy = vit().eval(), of.replace(NOISY, "projection.array.cell.write_noise.gamma", 5.0)
    quiet_kv = of.replace(noisy, "attention.array.cell.write_noise", {"kind": "none"})
    without = FED_BACK.model_copy(update={"residual": Residual()})
    errors = {}
    for weights in (FED_BACK, without):
        converted = of.convert(model, quiet_kv, sample=IMAGES, weights=weights)
        errors[weights] = 0.0
        for chip in range(8):
            of.set_chip(converted, chip)
            errors[weights] += float((outputs(converted, IMAGES) - outputs(model, IMAGES)).square().mean())
    assert errors[FED_BACK] < 0.6 * errors[without]

    one, two = (
        of.convert(vit(seed=seed), NOISY, sample=x, weights=FED_BACK) for seed, x in ((0, IMAGES), (9, IMAGES.flip(-1)))
    )
    outputs(two, IMAGES)
    two.load_state_dict(one.state_dict())
    assert torch.equal(outputs(two, IMAGES), outputs(one, IMAGES))
    state = one.state_dict()
    name = next(key for key in state if key.endswith("feedback_order"))
    state[name] = torch.zeros_like(state[name])
    with pytest.raises(RuntimeError, match="feedback_order"):
        two.load_state_dict(state)


def test_corrections_are_refused_by_name_where_they_cannot_be() -> None:
    with pytest.raises(BadInput, match="is a stack of matrices") as error:
        of.convert(Mixed().eval(), NOISY, sample=VECTORS[..., :12], weights=FED_BACK)
    assert "\n" not in str(error.value)
    converted = of.convert(vit().train(), NOISY, sample=IMAGES, weights=FED_BACK, level="noise")
    with of.variation(converted), pytest.raises(BadInput, match="train without feedback"):
        converted(IMAGES)


def test_a_setting_that_fails_or_is_interrupted_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = VECTORS[..., :12]
    stack = of.convert(Mixed().eval(), NOISY, sample=x)
    plain = outputs(stack, x)
    with pytest.raises(BadInput, match="is a stack of matrices"):
        of.set_weights(stack, FED_BACK)
    assert crossbars(stack).weights == WeightMitigation()
    assert torch.equal(outputs(stack, x), plain)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    model = of.convert(vit(), NOISY, sample=IMAGES, weights=SCALED)
    plain = outputs(model, IMAGES)
    monkeypatch.setattr("ohmformer.nn.convert.weight_mitigation.calibrate_ranges", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.set_weights(model, WHOLE)
    monkeypatch.setattr("ohmformer.nn.convert.calibrate_ranges.share_ranges", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.calibrate_ranges(model, [9 * IMAGES])
    monkeypatch.setattr("ohmformer.nn.calibration.calibrate.calibrate_ranges", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.set_kv(model, of.Conditioning(basis="hadamard"))
    assert crossbars(model).weights == SCALED
    assert torch.equal(outputs(model, IMAGES), plain)


def test_tied_layers_with_inputs_transformed_apart_have_corrections_apart() -> None:
    weights, x = WeightMitigation(scale="column", residual=Residual(feedback=True), rotate=True), VECTORS
    apart = of.convert(Tied().eval(), NOISY, sample=x, weights=weights, rules={"two": Rule(rotate=False)})
    alone = of.convert(
        Tied().eval(), NOISY, sample=x, weights=weights, rules={"one": Rule(on="digital"), "two": Rule(rotate=False)}
    )
    one, two, expected = statics(apart)["one"].feedback, statics(apart)["two"].feedback, statics(alone)["two"].feedback
    assert one is not None
    assert two is not None
    assert expected is not None
    torch.testing.assert_close(two.shares, expected.shares, rtol=1e-2, atol=1e-3)
    assert not torch.equal(two.shares, one.shares)


def test_values_without_digits_are_not_corrected() -> None:
    """Such a value stands in one cell, which is not read back."""
    layer = nn.Sequential(nn.Linear(24, 8)).eval()
    found = []
    for feedback in (False, True):
        residual = Residual(feedback=feedback)
        model = of.convert(layer, NOISY, sample=VECTORS, weights=WeightMitigation(scaling=0.5, residual=residual))
        with of.without_quantizers(model):
            found.append(outputs(model, VECTORS))
    assert torch.equal(*found)


def test_tied_layers_with_corrections_are_saved(tmp_path: Path) -> None:
    model = of.convert(Tied().eval(), NOISY, sample=VECTORS, weights=FED_BACK)
    of.save(model, tmp_path / "tied.safetensors")
    restored = of.restore(Tied().eval(), tmp_path / "tied.safetensors")
    assert torch.equal(outputs(restored, VECTORS), outputs(model, VECTORS))


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_corrections_follow_ratios_of_inputs_however_large_these_are(size: float) -> None:
    layer = nn.Sequential(nn.Linear(24, 8)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", of.NothingSeen)
        found = [
            statics(of.convert(layer, NOISY, sample=x, weights=FED_BACK))["0"].feedback
            for x in (VECTORS, size * VECTORS)
        ]
    first, second = found
    assert first is not None
    assert second is not None
    torch.testing.assert_close(second.shares, first.shares, rtol=0.02, atol=1e-3)


def test_corrections_beyond_half_precision_are_refused() -> None:
    model = of.convert(vit(), NOISY, sample=IMAGES, weights=FED_BACK)
    state = model.state_dict()
    name = next(name for name in state if name.endswith("feedback_shares"))
    state[name] = 1e30 * torch.ones_like(state[name], dtype=torch.float32)
    with pytest.raises(RuntimeError, match="feedback_shares"):
        model.load_state_dict(state)


def test_print_says_what_is_done() -> None:
    text = str(of.convert(vit(), NOISY, sample=IMAGES, weights=WHOLE))
    assert "(rotated, residual, scaling = 0.7, scale = column, range = 0.8, radix = 2)" in text
    assert "scaling" not in str(of.convert(vit(), NOISY, sample=IMAGES))


def test_half_precision() -> None:
    model, x = vit().to(torch.bfloat16), IMAGES.to(torch.bfloat16)
    converted = of.convert(model, QUIET, sample=x, weights=SCALED)
    found, clean = outputs(converted, x), outputs(model, x)
    assert found.dtype == torch.bfloat16
    assert float((found - clean).norm() / clean.norm()) < 0.1


def test_bits_of_sram_need_no_mitigation() -> None:
    sram = of.convert(vit(), of.load("sram_iso_area"), sample=IMAGES, weights=WHOLE)
    assert all(operand.scaling is None and operand.array.radix is None for operand in statics(sram).values())


@pytest.mark.parametrize(
    ("change", "rules", "words"),
    [
        ({"projection.array.encoding": "offset"}, {}, "^weights.radix"),
        (
            {"projection.array.write_verify": {"tolerance": 0.05, "writes": 4}},
            {},
            "^weights.residual: .*cells are written once",
        ),
        ({}, {"blocks.*.attn.K": {"weights": {}}}, "no static weights in memristive cells"),
        ({}, {"head": {"on": "digital", "weights": {}}}, "leave one of them out"),
        ({}, {"head": {"weights": {"radix": 0}}}, r"rules\['head'\].weights.radix"),
        ({}, {"head": {"weights": {"residual": {}, "unbiased": True}}}, "leave unbiased or residual out"),
        ({}, {"head": {"weights": {"scaling": 1.5}}}, r"rules\['head'\].weights.scaling"),
        ({}, {"head": {"weights": {"basis": "hadamard"}}}, "basis"),
    ],
)
def test_what_arrays_cannot_have_is_refused(change: dict[str, Any], rules: dict[str, Any], words: str) -> None:
    hardware = HARDWARE
    for path, value in change.items():
        hardware = of.replace(hardware, path, value)
    with pytest.raises(BadInput, match=words) as error:
        of.convert(vit(), hardware, sample=IMAGES, weights=WHOLE, rules=rules)
    assert "\n" not in str(error.value)


def test_unbiased_codes_need_cells_that_do_not_drift() -> None:
    drifting = of.replace(HARDWARE, "projection.array.cell.drift", {"kind": "power_law", "t0": 1.0, "nu": 0.05})
    aged = of.replace(drifting, "projection.array.age", 100.0)
    of.convert(vit(), drifting, sample=IMAGES, weights=UNBIASED)
    with pytest.raises(BadInput, match=r"^weights.unbiased: .*drift"):
        of.convert(vit(), aged, sample=IMAGES, weights=UNBIASED)
    with pytest.raises(BadInput, match=r"weights.unbiased: an 'offset' array"):
        of.convert(
            vit(),
            of.replace(HARDWARE, "projection.array.encoding", "offset"),
            sample=IMAGES,
            weights=WeightMitigation(unbiased=True),
        )
    with pytest.raises(BadInput, match="spec is a str"):
        of.set_weights(of.convert(vit(), HARDWARE, sample=IMAGES), "auto")  # type: ignore[arg-type]


def test_padding_decides_no_factors() -> None:
    """The hidden states of padding are real numbers, but nothing reads the results that belong to them."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 2, 32, batch_first=True), 1).eval()
    x, padding = VECTORS.clone(), torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 3:] = True
    found = []
    for scale in (1.0, 50.0):
        x[:, 3:] = scale * VECTORS[:, 3:]
        sample = {"src": x.clone(), "src_key_padding_mask": padding}
        found.append(statics(of.convert(model, QUIET, sample=sample, weights=SCALED)))
    first, second = found
    for name in first:
        assert first[name].scaling is not None
        torch.testing.assert_close(first[name].scaling, second[name].scaling)


@pytest.mark.parametrize("weights", [WHOLE, UNBIASED])
def test_training_goes_through_mitigated_weights(weights: WeightMitigation) -> None:
    model = vit().train()
    converted = of.convert(model, NOISY, sample=IMAGES, weights=weights, level="noise")
    with of.variation(converted):
        converted(IMAGES).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)
    assert float(model.head.weight.grad.abs().sum()) > 0
