"""Conversion: proved against the original, complete, loud about what it leaves out, and never half done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, KVClip
from ohmformer.capture.inputs import call
from ohmformer.nn.checks.comparing import TOLERANCE, difference
from ohmformer.nn.convert.convert import StaysDigital
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import Encoder, SelfAttention, vit

HARDWARE = of.load("clipformer_tcad_2024")
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def causal_float_mask() -> torch.Tensor:
    return torch.zeros(7, 7).masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)


def padding() -> torch.Tensor:
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[1, 5:] = True
    return mask


CASES = {
    "vit": (vit, IMAGES),
    "plain": (SelfAttention, TOKENS),
    "scaled": (lambda: SelfAttention(scale=0.5), TOKENS),
    "causal": (lambda: SelfAttention(is_causal=True), TOKENS),
    "grouped heads": (lambda: SelfAttention(groups=2, enable_gqa=True), TOKENS),
    "boolean mask": (SelfAttention, (TOKENS, ~padding()[:, None, None, :])),
    "float mask": (SelfAttention, (TOKENS, causal_float_mask())),
    "encoder": (Encoder, TOKENS),
    "encoder, padded": (Encoder, {"x": TOKENS, "padding": padding()}),
    "encoder, norm first": (lambda: Encoder(norm_first=True), TOKENS),
    "multihead with weights": (lambda: MultiheadWithWeights(), TOKENS),
    "separate projections": (lambda: CrossAttention(), TOKENS),
}


class MultiheadWithWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.attention(x, x, x, attn_mask=causal_float_mask(), average_attn_weights=False)


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True, kdim=6, vdim=10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x[..., :6], x[..., 6:16], need_weights=False)[0]


def build(name: str) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    make, sample = CASES[name]
    return make().eval(), sample


@pytest.mark.parametrize("name", CASES)
def test_exact_hardware_gives_the_original_and_noise_changes_it(name: str) -> None:
    model, sample = build(name)
    noisy = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 3.0)
    converted = of.convert(model, noisy, sample=sample)
    expected = call(model, sample)
    state = crossbars(converted).state
    with of.samples([0, 1, 2, 3][: of.capture.dry_run.batch_size(sample)]), torch.no_grad():
        state.mode = "bypass"
        assert difference(expected, call(converted, sample)) <= TOLERANCE
        state.mode = "run"
        assert difference(expected, call(converted, sample)) > 0.01
    assert {operand.name for operand in crossbars(converted).operands} <= state.threads.call.uses.keys()


def test_names_and_parameters_stay_and_the_original_is_untouched() -> None:
    model = vit()
    classes = [type(module) for module in model.modules()]
    expected = model(IMAGES)
    converted = of.convert(model, HARDWARE, sample=IMAGES)
    own = [name for name in converted.state_dict() if not name.startswith("ohmformer_ranges.")]
    assert own == list(model.state_dict())
    assert all(a is b for a, b in zip(model.parameters(), converted.parameters(), strict=True))
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(IMAGES), expected)
    converted.load_state_dict(copy.deepcopy(model.state_dict()))


def test_training_flags_survive() -> None:
    model = vit().train()
    model.blocks[0].eval()
    converted = of.convert(model, HARDWARE, sample=IMAGES)
    assert [m.training for m in converted.modules()] == [m.training for m in model.modules()]
    assert model.training
    assert not model.blocks[0].training


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
def test_changed_weights_are_written_again() -> None:
    model = vit()
    converted = of.convert(model, HARDWARE, sample=IMAGES)
    with torch.no_grad(), of.samples(range(4)):
        before = converted(IMAGES)
        model.head.weight.mul_(2.0)
        assert not torch.allclose(converted(IMAGES), before)


def test_the_table_names_every_product() -> None:
    rows = of.capture_table(of.convert(vit(), HARDWARE, sample=IMAGES)).rows
    found = {(row.module, row.product, row.engine) for row in rows}
    assert ("patch_embed", "x W", "projection") in found
    assert ("blocks.1.attn", "Q K", "attention.key") in found
    assert ("blocks.1.attn", "P V", "attention.value") in found
    assert len(rows) == 1 + 2 * (4 + 2) + 1
    assert not of.capture_table(of.convert(vit(), HARDWARE, sample=IMAGES)).digital


def test_rules_choose_and_the_first_match_wins() -> None:
    other = of.load_crossbar("clipformer_2024")
    rules = {"blocks.0.attn": None, "blocks.0.*": other, "head": None}
    converted = of.convert(vit(), HARDWARE, sample=IMAGES, rules=rules)
    digital = {(row.module, row.reason) for row in of.capture_table(converted).digital}
    assert digital == {("blocks.0.attn", "by rule"), ("head", "by rule")}
    arrays = {operand.name: operand.array for operand in crossbars(converted).operands}
    assert arrays["blocks.0.mlp.0"] == other
    assert arrays["blocks.1.mlp.0"] == HARDWARE.projection.array


def test_a_layer_that_is_not_converted_is_listed() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    with pytest.warns(StaysDigital, match="1 product stays digital in 0: conv_transpose2d is not understood"):
        converted = of.convert(model, HARDWARE, sample=torch.randn(2, 4, 4, 4))
    (row,) = of.capture_table(converted).digital
    assert row.module == "0"


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"dilation": 2},
        {"padding": (0, 2), "bias": False},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_convolutions_of_any_shape(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 5, (2, 3), **options)
    converted = of.convert(model, HARDWARE, sample=torch.randn(2, 3, 9, 8))
    assert of.capture_table(converted).rows[0].engine == "projection"


@pytest.mark.parametrize("options", [{"groups": 4}, {"groups": 2, "stride": 2}])
def test_grouped_convolutions_have_a_matrix_per_group(options: dict[str, object]) -> None:
    converted = of.convert(nn.Conv2d(4, 8, 3, **options), HARDWARE, sample=torch.randn(2, 4, 9, 8))
    assert [row.engine for row in of.capture_table(converted).rows] == ["projection"]
    sequence = of.convert(nn.Conv1d(4, 8, 3, **options), HARDWARE, sample=torch.randn(2, 4, 9))
    assert [row.engine for row in of.capture_table(sequence).rows] == ["projection"]


class LinearAttention(nn.Module):
    """No softmax, and the second factor is itself a product: no attention as it is understood."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ (x.transpose(1, 2) @ x)


def test_products_of_two_activations_are_refused_by_name() -> None:
    x = torch.randn(2, 3, 8)
    model = nn.Sequential(nn.Linear(8, 8), LinearAttention())
    with pytest.raises(BadInput, match=r"^1: multiplies two activations by .*rules=\{'1': None\}"):
        of.convert(model, HARDWARE, sample=x)
    converted = of.convert(model, HARDWARE, sample=x, rules={"1": None})
    assert {row.module for row in of.capture_table(converted).digital} == {"1"}
    captured = of.convert(model, HARDWARE, sample=x, rules={"1": of.Rule(on="attention.value")})
    assert [row.product for row in of.capture_table(captured).rows] == ["x W", "P V", "P V"]


def test_a_wrong_replacement_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    right = of.nn.modules.linear.CrossbarLinear.forward
    monkeypatch.setattr(of.nn.modules.linear.CrossbarLinear, "forward", lambda self, x: 2 * right(self, x))
    with pytest.raises(BadInput, match=r"first at blocks.0.attn.qkv"):
        of.convert(vit(), HARDWARE, sample=IMAGES)


class Zero(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def broken() -> nn.Module:
    model = vit()
    with torch.no_grad():
        model.blocks[1].mlp[0].weight[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("make", "options", "line"),
    [
        (broken, {}, "parameter blocks.1.mlp.0.weight holds NaN"),
        (vit, {"sample": IMAGES[:0]}, "sample is empty"),
        (vit, {"sample": IMAGES * torch.nan}, "sample hold NaN or infinity"),
        (vit, {"level": "exact"}, "level = 'exact'"),
        (vit, {"rules": {"layers.*": None}}, "matches no module"),
        (vit, {"clip": KVClip(alpha=1.0, beta=0.01)}, "raise beta"),
        (Zero, {"sample": torch.randn(2, 4)}, "would prove nothing"),
        (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), {"sample": (torch.ones(2, 3, 8),) * 3}, "add_zero"),
    ],
)
def test_bad_input_gets_one_line(make: object, options: dict[str, object], line: str) -> None:
    with pytest.raises(BadInput, match=line) as caught:
        of.convert(make(), HARDWARE, **{"sample": IMAGES, **options})
    assert "\n" not in str(caught.value)


def test_nan_activations_are_an_error_not_a_number() -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    with of.samples(range(4)), pytest.raises(BadInput, match="NaN"):
        converted(IMAGES * torch.nan)


def test_a_converted_model_is_not_converted_twice() -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    with pytest.raises(BadInput, match="already"):
        of.convert(converted, HARDWARE, sample=IMAGES)
    with pytest.raises(BadInput, match="not on crossbars"):
        of.set_chip(vit(), 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = SelfAttention().to(dtype).eval()
    x = TOKENS.to(dtype)
    converted = of.convert(model, HARDWARE, sample=x)
    with of.samples(range(3)), torch.no_grad():
        assert converted(x).dtype == dtype


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def test_a_layer_that_the_sample_does_not_reach_is_listed() -> None:
    with pytest.warns(StaysDigital, match="is not called on the sample"):
        (row,) = of.capture_table(of.convert(Branches(), HARDWARE, sample=torch.randn(2, 4))).digital
    assert (row.module, row.reason) == ("unused", "its forward is not called on the sample")


@dataclass
class Answer:
    """What some models return."""

    scores: Tensor
    more: object = None


@pytest.mark.parametrize(
    "wrap", [Answer, lambda y: {"a": [Answer(y)]}, lambda y: torch.complex(y, y), lambda y: (None, Answer([y]))]
)
def test_outputs_of_any_structure_are_compared(wrap: Callable[[Tensor], object]) -> None:
    class Wrapped(nn.Linear):
        """A layer whose output is wrapped; after the conversion it may be wrong."""

        def forward(self, x: Tensor) -> object:
            return wrap(super().forward(x))

    torch.manual_seed(0)
    of.convert(Wrapped(8, 4), HARDWARE, sample=torch.randn(3, 8))
    silent = Wrapped(8, 4)
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    with pytest.raises(BadInput, match="is zero"):
        of.convert(silent, HARDWARE, sample=torch.randn(3, 8))


def test_layers_that_wait_for_their_first_call_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="call the model once"):
        of.convert(nn.Sequential(nn.LazyLinear(4)), HARDWARE, sample=torch.randn(3, 8))


class Shuffled(nn.Module):
    """Attention to some tokens, drawn anew in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.rand(x.shape[:2]).argsort(dim=1)[:, :3, None]
        return self.attention(x.gather(1, chosen.expand(-1, -1, x.shape[2])))  # type: ignore[no-any-return]


def test_a_model_that_draws_is_named_as_the_cause() -> None:
    """Keeping its attention digital, one module after the other, would not help."""
    model = Shuffled()
    with pytest.raises(BadInput, match="the model itself gives another output when it is called again"):
        of.convert(model, HARDWARE, sample=TOKENS)
    assert all(module.training for module in model.modules())
