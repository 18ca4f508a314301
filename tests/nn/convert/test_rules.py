"""Exceptions by name: what runs where, what is written, how it is scaled and clipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, KVClip, Rule
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul
from tests.nn.models import Decoder, Unfused, vit

HARDWARE = of.load("clipformer_tcad_2024")
NOISY = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 4.0)
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, x: Tensor = IMAGES) -> Tensor:
    with torch.no_grad(), of.samples(range(len(x))):
        y: Tensor = model(x)
    return y


def operands(model: nn.Module) -> dict[str, KVOperand | WeightOperand]:
    return {o.name: o for o in crossbars(model).operands if isinstance(o, (KVOperand, WeightOperand))}


def test_rules_choose_engines_arrays_scales_and_percentiles() -> None:
    other = of.load("generic_amplitude")
    array = other.projection.array if isinstance(other, of.Accelerator) else other
    rules = {
        "blocks.0.attn.K": Rule(scale="head", percentile=99.0),
        "blocks.0.attn": "digital",
        "blocks.0.mlp.*": array,
        "blocks.1.attn.qkv": Rule(on="attention.key"),
        "head": Rule(scale="column"),
    }
    found = operands(of.convert(vit(), HARDWARE, sample=IMAGES, rules=rules))
    assert "blocks.0.attn.V" not in found
    assert found["blocks.0.mlp.0"].array == array
    assert found["blocks.1.attn.qkv"].array == HARDWARE.attention.key.array
    assert found["head"].array.scale == "column"
    assert found["head"].array.cell == HARDWARE.projection.array.cell


def test_operands_can_be_named_one_by_one() -> None:
    table = of.capture_table(of.convert(vit(), HARDWARE, sample=IMAGES, rules={"blocks.*.attn.V": None}))
    digital = [(row.module, row.product) for row in table.digital]
    assert digital == [("blocks.0.attn", "P V"), ("blocks.1.attn", "P V")]


def test_a_clip_for_each_head() -> None:
    clip = KVClip(alpha=2.0, beta=0.25)
    whole = of.convert(vit(), NOISY, sample=IMAGES, clip=clip)
    none = of.convert(vit(), NOISY, sample=IMAGES)
    by_rule = of.convert(vit(), NOISY, sample=IMAGES, rules={"blocks.*.attn.?": Rule(clip=clip)})
    assert torch.equal(outputs(by_rule), outputs(whole))
    each = of.convert(vit(), NOISY, sample=IMAGES, rules={"*.attn.?": Rule(clip=(clip, clip, clip))})
    assert torch.equal(outputs(each), outputs(whole))
    back = of.convert(vit(), NOISY, sample=IMAGES, clip=clip, rules={"*.attn.?": Rule(clip=("none",) * 3)})
    assert torch.equal(outputs(back), outputs(none))
    some = of.convert(vit(), NOISY, sample=IMAGES, rules={"*.attn.?": Rule(clip=(clip, "none", "none"))})
    assert not torch.equal(outputs(some), outputs(none))
    with pytest.raises(BadInput, match="2 clips for 3 heads"):
        outputs(of.convert(vit(), NOISY, sample=IMAGES, rules={"*.attn.?": Rule(clip=(clip, clip))}))


def test_the_written_factor_can_be_the_left_one() -> None:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    model = Unfused().eval()
    left = of.convert(model, HARDWARE, sample=x, rules={"inner.K": Rule(write="left")})
    assert operands(left)["inner.K"].signed
    right = of.convert(model, HARDWARE, sample=x)
    clean = outputs(model, x)
    for converted in (left, right):
        assert 0 < float((outputs(converted, x) - clean).norm() / clean.norm()) < 0.5
    assert not torch.equal(outputs(left, x), outputs(right, x))


def test_tied_weights_are_programmed_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x))
            return y

    x = torch.randn(2, 5, 8)
    converted = of.convert(Tied(), HARDWARE, sample=x)
    first, second = operands(converted).values()
    assert isinstance(first, WeightOperand)
    assert isinstance(second, WeightOperand)
    outputs(converted, x)
    assert first.cells is second.cells
    assert first.x_range != second.x_range
    head = operands(of.convert(Decoder().eval(), HARDWARE, sample=TOKENS))["head"]
    assert isinstance(head, WeightOperand)
    assert head.cells.name == "head"


def test_ranges_per_column_and_percentiles_help_weights_with_outliers() -> None:
    """One outlier sets the range of a whole matrix, and with it the noise of all other weights."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False).eval()
    with torch.no_grad():
        model.weight[3, 5] = 4.0
    x = torch.randn(32, 64)
    noise = of.replace(HARDWARE, "projection.array.cell.write_noise.gamma", 1.0)
    clean, errors = outputs(model, x), {}
    for name, rule in {
        "tensor": Rule(),
        "column": Rule(scale="column"),
        "percentile": Rule(percentile=99.9),
    }.items():
        found = outputs(of.convert(model, noise, sample=x, rules={"*": rule}), x)
        keep = [n for n in range(64) if n != 3]
        errors[name] = float((found - clean)[:, keep].norm() / clean[:, keep].norm())
    assert errors["column"] < 0.5 * errors["tensor"]
    assert errors["percentile"] < 0.5 * errors["tensor"]


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"nothing*": None}, "'nothing\\*' matches no module"),
        ({"head": "projektion"}, "did you mean 'projection'"),
        ({"head": 3}, "of type int"),
        ([("head", None)], "rules is a list"),
        ({3: None}, "a name pattern is text"),
        ({"head": {"on": "digital", "array": "generic_amplitude"}}, "leave one of them out"),
    ],
)
def test_bad_rules_get_one_line(rules: object, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        of.convert(vit(), HARDWARE, sample=IMAGES, rules=rules)


def test_weights_that_stay_digital_do_not_shift_what_stands_beside_them() -> None:
    """The module multiplies weights and attention by itself; only some of it is on crossbars."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.bank = nn.Linear(8, 24), nn.Parameter(torch.randn(3, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = nn.functional.linear(x, self.qkv.weight).chunk(3, dim=-1)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return sum(y @ expert for expert in self.bank)  # type: ignore[return-value]

    x = torch.randn(2, 5, 8)
    for rules in ({"qkv": None}, {"bank*": None}, {"bank?1]": None, "*.V": None}, {"": None, "qkv": None}):
        converted = of.convert(Mixed().eval(), HARDWARE, sample=x, rules=rules)
        assert of.capture_table(converted).digital
        outputs(converted, x)
    everything = {"qkv": None, "bank*": None, "": None}
    model = Mixed().eval()
    assert torch.equal(outputs(of.convert(model, HARDWARE, sample=x, rules=everything), x), outputs(model, x))


@pytest.mark.parametrize("model", [vit, Decoder])
def test_engines_say_which_factor_they_write(model: type[nn.Module]) -> None:
    """X-Former stores Q instead of K, in SRAM that writes without error: close to the original, clip or not."""
    hardware = of.load("xformer_tvlsi_2023")
    assert isinstance(hardware, of.Accelerator)
    digital = model().eval()
    x = IMAGES if model is vit else TOKENS
    exact = of.replace(hardware, "attention.array.adc.bits", "ideal")
    exact = of.replace(exact, "projection.array.adc.bits", "ideal")
    converted = of.convert(digital, exact, sample=x, level="noise", clip=KVClip())
    found = operands(converted)
    keys = [o for o in found.values() if isinstance(o, KVOperand) and o.name.endswith(".K")]
    assert {o.write for o in keys} == {"left"}
    clean = outputs(digital, x)
    error = float((outputs(converted, x) - clean).norm() / clean.norm())
    assert 0 < error < 0.1
    of.set_clip(converted, None)
    assert float((outputs(converted, x) - clean).norm() / clean.norm()) == error


def test_a_rule_behind_another_says_so() -> None:
    with pytest.raises(BadInput, match=r"'blocks.0.\*' stands behind rules that match first"):
        of.convert(vit(), HARDWARE, sample=IMAGES, rules={"blocks.*": "projection", "blocks.0.*": None})


def test_buffers_that_a_model_writes_are_not_changed_by_converting_it() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y: Tensor = self.layer(x)
            return y

    model = Counter().eval()
    converted = of.convert(model, HARDWARE, sample=torch.randn(2, 8))
    assert float(model.calls) == 0
    outputs(converted, torch.randn(2, 8))
    assert float(model.calls) == 1  # buffers stay shared


@pytest.mark.parametrize("rule", [Rule(clip=KVClip(alpha=1.0, beta=0.5)), Rule(clip="none"), Rule(write="left")])
def test_settings_of_k_and_v_are_refused_for_static_weights(rule: Rule) -> None:
    """They would have no effect there."""
    with pytest.raises(BadInput, match=r"'\*.qkv': sets (clip|write), which is for K and V"):
        of.convert(vit(), HARDWARE, sample=IMAGES, rules={"*.qkv": rule})
    of.convert(vit(), HARDWARE, sample=IMAGES, rules={"blocks.*": rule})  # K and V are among them


class NamedByRole(nn.Module):
    """Attention whose layers are named K and V."""

    def __init__(self) -> None:
        super().__init__()
        self.K, self.V = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = nn.functional.scaled_dot_product_attention(x, 5 * self.K(x), self.V(x))
        return y


class WrittenAndFused(nn.Module):
    """A module that computes attention twice: written out, and in one call."""

    def forward(self, x: Tensor) -> Tensor:
        written = (x @ x.transpose(1, 2)).softmax(-1) @ x
        y: Tensor = nn.functional.scaled_dot_product_attention(10 * x, 10 * x, 10 * x)
        return written + y


@pytest.mark.parametrize("attention", [NamedByRole, WrittenAndFused])
def test_no_two_operands_share_a_name(attention: type[nn.Module], tmp_path: Path) -> None:
    """Random numbers, ranges and rules belong to names."""
    model = nn.Sequential(attention()).eval()
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    converted = of.convert(model, NOISY, sample=x)
    names = [operand.name for operand in crossbars(converted).operands]
    assert len(set(names)) == len(names) == 4
    traced = [op.name for op in of.trace(model, x).ops if isinstance(op, (StaticMatMul, DynamicMatMul))]
    assert sorted(traced) == sorted(names)
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(model, tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, x), outputs(converted, x))
    for name in names:
        found = operands(of.convert(model, NOISY, sample=x, rules={name: None}))
        assert set(found) == set(names) - {name}
