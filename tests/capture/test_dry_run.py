"""Whatever multiplies is found, however it is written: put on crossbars, listed as digital, or refused by name."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.convert.convert import StaysDigital
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import Encoder, SelfAttention

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
READ_NOISE = of.replace(HARDWARE, "projection.array.cell.read_noise", {"kind": "proportional", "sigma": 0.1})
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


class FunctionalProjections(SelfAttention):
    """As in BEiT and EVA: the attention calls F.linear itself, so its own name multiplies weights and activations."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = [F.linear(x, layer.weight, layer.bias) for layer in (self.q, self.k, self.v)]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in heads)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return F.linear(y, self.q.weight)


def test_weights_that_an_attention_multiplies_by_itself_are_held_under_their_own_names() -> None:
    converted = of.convert(FunctionalProjections(), HARDWARE, sample=TOKENS)
    rows = of.capture_table(converted).rows
    assert [(row.module, row.product, row.engine) for row in rows] == [
        ("q", "x W", "projection"),
        ("k", "x W", "projection"),
        ("v", "x W", "projection"),
        ("", "Q K", "attention.key"),
        ("", "P V", "attention.value"),
    ]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(24, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0])


class Kernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.ops.aten.bmm(y, y.mT)


@pytest.mark.parametrize(("make", "module"), [(Recurrent, "gru"), (Kernel, "")])
def test_what_only_its_kernels_show_is_listed(make: type[nn.Module], module: str) -> None:
    with pytest.warns(StaysDigital, match="not understood"):
        converted = of.convert(make().eval(), HARDWARE, sample=TOKENS)
    assert {row.module for row in of.capture_table(converted).digital} == {module}


class LinearAlgebra(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matmul(x, x.mT)


def test_products_of_activations_by_other_names_are_refused() -> None:
    with pytest.raises(BadInput, match="the model itself: multiplies two activations by linalg_matmul"):
        of.convert(LinearAlgebra(), HARDWARE, sample=TOKENS)


class AttentionPool(nn.Module):
    """As in CLIP: the fused function of nn.MultiheadAttention, called by somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        m = self.inner
        x = x.transpose(0, 1)
        weights = (m.in_proj_weight, m.in_proj_bias, None, None, False, 0.0, m.out_proj.weight, m.out_proj.bias)
        return F.multi_head_attention_forward(x, x, x, 24, 4, *weights)[0].transpose(0, 1)


def test_the_fused_function_outside_its_module_is_refused() -> None:
    with pytest.raises(BadInput, match="the model itself: calls multi_head_attention_forward directly"):
        of.convert(AttentionPool(), HARDWARE, sample=TOKENS)


def test_the_fused_encoder_does_not_pass_converted_layers_by() -> None:
    """With its attention digital, PyTorch's fast path reads the weights of linear1 and linear2 but calls neither."""
    torch.manual_seed(0)
    model = Encoder().eval()
    rules = {"*self_attn": None, "head": None}
    noisy = of.replace(HARDWARE, "projection.array.cell.write_noise.gamma", 20.0)
    converted = of.convert(model, noisy, sample=TOKENS, rules=rules)
    with torch.no_grad(), of.samples(range(3)):
        assert not torch.allclose(converted(TOKENS), model(TOKENS), atol=1e-3)


class Twice(nn.Module):
    """One attention, used for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.attention(x), self.attention(x)], dim=1)


def test_a_shared_layer_draws_other_noise_at_each_use_and_the_same_in_each_pass() -> None:
    torch.manual_seed(0)
    converted = of.convert(Twice(), READ_NOISE, sample=TOKENS)
    assert len([row for row in of.capture_table(converted).rows if row.product == "Q K"]) == 1
    with torch.no_grad(), of.samples(range(3)):
        first, again = converted(TOKENS), converted(TOKENS)
    assert torch.equal(first, again)
    assert not torch.allclose(first[:, 0], first[:, 1], atol=1e-3)


class SequenceFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


def test_samples_are_found_behind_sequences() -> None:
    converted = of.convert(SequenceFirst(), READ_NOISE, sample=TOKENS)
    with torch.no_grad(), of.samples([4, 5, 6]):
        together = converted(TOKENS)
    with torch.no_grad(), of.samples([5]):
        alone = converted(TOKENS[1:2])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[1], SequenceFirst().layer(TOKENS[1]))


class Gathered(nn.Module):
    """Rows that no longer say whose they are, as in a mixture of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)[[0, 3, 8, 1]])


def test_rows_that_are_no_samples_are_refused_where_reads_draw_noise() -> None:
    of.convert(Gathered(), HARDWARE, sample=TOKENS)
    with pytest.raises(BadInput, match=r"^layer: inputs of shape \(4, 24\) for 3 samples do not show which rows"):
        of.convert(Gathered(), READ_NOISE, sample=TOKENS)


@pytest.mark.parametrize("shape", [(7, 7), (4, 7, 7), (1, 4, 7, 7), (3, 1, 7, 7), (3, 1, 1, 7)])
def test_masks_of_any_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mask = torch.rand(shape) > 0.3
    mask[..., 0] = True
    model = SelfAttention().eval()
    quiet = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0)
    converted = of.convert(model, quiet, sample=(TOKENS, mask))
    with torch.no_grad(), of.samples(range(3)):
        expected, found = model(TOKENS, mask), converted(TOKENS, mask)
    assert float((found - expected).norm() / expected.norm()) < 0.1


def test_per_head_masks_are_not_taken_for_per_sample_masks() -> None:
    """Four heads and four samples: a token that only some heads may see is no padding."""
    torch.manual_seed(0)
    x = torch.randn(4, 7, 24)
    mask = torch.ones(4, 7, 7, dtype=torch.bool)
    mask[0, :, 3] = False
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=(x, mask))
    key = next(o for o in crossbars(converted).operands if o.name.endswith("K"))
    seen: list[object] = []
    original = key.range
    key.range = lambda values, unpadding: (seen.append(unpadding), original(values, unpadding))[1]  # type: ignore
    with torch.no_grad(), of.samples(range(4)):
        converted(x, mask)
    assert seen == [None]


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
def test_changes_through_data_are_seen() -> None:
    torch.manual_seed(0)
    model = SelfAttention().eval()
    converted = of.convert(model, HARDWARE, sample=TOKENS)
    with torch.no_grad(), of.samples(range(3)):
        before = converted(TOKENS)
        model.v.weight.data.mul_(2)
        assert not torch.allclose(converted(TOKENS), before)


def test_pruning_a_column_through_data_is_seen() -> None:
    torch.manual_seed(0)
    model = SelfAttention().eval()
    converted = of.convert(model, HARDWARE, sample=TOKENS)
    with torch.no_grad(), of.samples(range(3)):
        before = converted(TOKENS)
        model.v.weight.data[:, 5] = 0
        assert not torch.allclose(converted(TOKENS), before)


def test_weights_made_in_inference_mode_can_be_converted() -> None:
    with torch.inference_mode():
        model = SelfAttention().eval()
        converted = of.convert(model, HARDWARE, sample=TOKENS)
        with of.samples(range(3)):
            assert bool(torch.isfinite(converted(TOKENS)).all())


def test_buffers_are_those_of_the_original() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 4), nn.Flatten(), nn.BatchNorm1d(28), nn.Linear(28, 2))
    converted = of.convert(model, HARDWARE, sample=TOKENS)
    with of.samples(range(3)):
        converted.train()(TOKENS)
    assert torch.equal(model[2].running_mean, converted[2].running_mean)
    assert bool(model[2].running_mean.any())


def test_a_clip_can_change_where_converters_are_calibrated() -> None:
    adc = {"bits": 6, "range": {"kind": "calibrated", "percentile": 99.0}}
    hardware = of.replace(of.replace(HARDWARE, "attention.array.adc", adc), "projection.array.adc", adc)
    torch.manual_seed(0)
    model = SelfAttention().eval()
    clipped = of.convert(model, hardware, sample=TOKENS, clip=of.KVClip(alpha=2.0, beta=0.25))
    plain = of.convert(model, hardware, sample=TOKENS)
    of.set_chip(clipped, 7)
    of.set_clip(clipped, None)
    of.set_chip(clipped, 0)
    with torch.no_grad(), of.samples(range(3)):
        assert torch.equal(clipped(TOKENS), plain(TOKENS))


def test_a_converted_model_can_be_pickled() -> None:
    torch.manual_seed(0)
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    copied = pickle.loads(pickle.dumps(converted))
    with torch.no_grad(), of.samples(range(3)):
        assert torch.equal(copied(TOKENS), converted(TOKENS))
        of.set_chip(copied, 1)
        assert not torch.allclose(copied(TOKENS), converted(TOKENS))


class Random(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + torch.randn(3, 7, 2)


class Integers(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).argmax(-1)


def weight_norm() -> nn.Module:
    return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(24, 4)), nn.Linear(4, 2))


def test_a_computed_weight_stays_digital() -> None:
    with pytest.warns(StaysDigital, match="computed from other parameters"):
        of.convert(weight_norm(), HARDWARE, sample=TOKENS)


@pytest.mark.parametrize(
    ("make", "options", "line"),
    [
        (lambda: Random(24, 2), {}, "another output when it is called again"),
        (lambda: Integers(24, 2), {}, "returns no floating-point tensor"),
        (nn.Identity, {}, "multiplies nothing on the sample"),
        (lambda: nn.Linear(5, 2), {}, "fails on the sample"),
        (lambda: nn.Linear(24, 2), {"sample": torch.ones(24)}, "no axis of samples"),
        (lambda: nn.Linear(24, 2), {"sample": None}, "sample is empty"),
        (lambda: nn.Linear(24, 2), {"clip": (2, 0.25)}, "clip is a tuple"),
        (lambda: nn.Linear(24, 2), {"rules": {"*": 3}}, "of type int; give 'digital', the name of an engine"),
        (lambda: nn.Linear(24, 2), {"rules": {"*": "digitl"}}, "did you mean 'digital'"),
        (lambda: nn.Linear(24, 2), {"hardware": of.load_crossbar("clipformer_2024")}, "hardware is a Crossbar"),
        (lambda: torch.jit.script(nn.Linear(24, 2)), {}, "TorchScript"),
        (lambda: lambda x: x, {}, "model is a function"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bad_input_gets_one_line(make: object, options: dict[str, object], line: str) -> None:
    arguments = {"hardware": HARDWARE, "sample": TOKENS, **options}
    with pytest.raises(BadInput, match=line) as caught:
        of.convert(make(), arguments.pop("hardware"), **arguments)
    assert "\n" not in str(caught.value)


def test_what_a_rule_keeps_digital_needs_no_warning() -> None:
    """Warnings are errors here; the kernels of the recurrent layer are not understood."""
    converted = of.convert(Recurrent().eval(), HARDWARE, sample=TOKENS, rules={"gru": None})
    assert {(row.module, row.reason) for row in of.capture_table(converted).digital} == {("gru", "by rule")}


@pytest.mark.parametrize("digital", [False, True])
def test_the_last_layer_of_torchs_attention_is_captured_too(digital: bool) -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    rules = {"out_proj": None} if digital else {}
    model = of.convert(nn.MultiheadAttention(8, 2).eval(), HARDWARE, sample=(x, x, x), rules=rules)
    engine = {row.module: row.engine for row in of.capture_table(model).rows}
    assert engine["out_proj"] == ("digital" if digital else "projection")
    assert ("out_proj" in [operand.name for operand in crossbars(model).operands]) != digital


def test_constants_such_as_codes_of_positions_are_inputs_like_others() -> None:
    class Positions(nn.Module):
        """As in XLNet: a parameter meets codes of positions by einsum."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.x, self.r = nn.Linear(24, 24), nn.Parameter(torch.randn(24, 24))

        def forward(self, x: Tensor) -> Tensor:
            codes = torch.arange(x.shape[1] * 24.0).view(-1, 24).sin()
            y: Tensor = self.x(x) + torch.einsum("nh,hd->nd", codes, self.r)
            return y

    converted = of.convert(Positions(), HARDWARE, sample=TOKENS)
    assert {operand.name for operand in crossbars(converted).operands} == {"x", "r"}
    assert of.trace(Positions(), TOKENS).macs == 3 * 7 * 24 * 24 + 7 * 24 * 24


class Predicted(nn.Module):
    """A layer that mixes two streams of its residual path by coefficients that each token computes (AltUp)."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.linear = nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, streams: Tensor) -> Tensor:
        mix = self.router(streams[..., 0]).unflatten(-1, (2, 2))
        predicted = streams + streams @ mix
        return predicted + self.linear(predicted[..., 0])[..., None]


class Streams(nn.Module):
    """Two such layers in one model: the product of the second descends from that of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Predicted(), Predicted()])

    def forward(self, x: Tensor) -> Tensor:
        streams = torch.stack([x, x + 1], dim=-1)
        for layer in self.layers:
            streams = layer(streams)
        return streams


def test_products_of_two_layers_without_a_softmax_are_no_attention() -> None:
    with pytest.raises(of.BadInput, match=r"layers\.0: multiplies two activations .* rules=\{'layers\.0': None\}"):
        of.convert(Streams(), HARDWARE, sample=torch.randn(3, 5, 8), level="noise")
