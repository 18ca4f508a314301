"""Ways to write attention that are easy to get wrong: each was found in a published model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer.capture.table import CONSTANT
from ohmformer.nn.checks.comparing import difference
from ohmformer.nn.convert.convert import StaysDigital
from ohmformer.nn.convert.handle import crossbars

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
READ_NOISE = of.replace(HARDWARE, "projection.array.cell.read_noise", {"kind": "proportional", "sigma": 0.1})
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def exact_error(model: nn.Module, converted: nn.Module, x: Tensor) -> float:
    """How far exact hardware is from the original on another batch."""
    state = crossbars(converted).state
    state.mode = "bypass"
    try:
        with torch.no_grad(), of.samples(range(len(x))):
            return difference(model(x), converted(x))
    finally:
        state.mode = "run"


class Heads(nn.Module):
    """Projections to q, k, v [B, H, N, d] of heads of 8 features, for attention that subclasses write."""

    def __init__(self, heads: int = 3, groups: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.groups = heads, groups
        self.q, self.kv = nn.Linear(24, heads * 8), nn.Linear(24, 2 * groups * 8)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q[B, H, N, d], k[B, G, N, d] and v[B, G, N, d]."""
        k, v = self.kv(x).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, 8)).transpose(1, 2) for t in (self.q(x), k, v))
        return q, k, v


class Permuting(Heads):
    """XLNet moves the axes of its mask by an einsum of one operand, in some calls only."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        scores = torch.einsum("bhmd,bhnd->bhmn", q, k)
        if mask is not None:
            scores = scores - torch.einsum("nmb->bmn", mask)[:, None]
        return torch.einsum("bhmn,bhnd->bhmd", scores.softmax(dim=-1), v)


def test_an_einsum_of_one_operand_is_no_product() -> None:
    converted = of.convert(Permuting(), HARDWARE, sample=TOKENS)
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 1, "P V": 1}
    with of.samples(range(3)):
        assert converted(TOKENS, torch.zeros(7, 7, 3)).shape == (3, 3, 7, 8)


class OneHead(Heads):
    """Falcon gives fused attention one head of keys, which is broadcast without being asked to."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.split(x))


def test_one_head_of_keys_is_broadcast_and_written_once() -> None:
    model = OneHead(groups=1)
    converted = of.convert(model, HARDWARE, sample=TOKENS)
    assert exact_error(model, converted, TOKENS[:2, :5]) < 1e-4
    with of.samples([4, 5, 6]), torch.no_grad():
        together = converted(TOKENS)
    with of.samples([6]), torch.no_grad():
        torch.testing.assert_close(converted(TOKENS[2:]), together[2:])


class Transposed(Heads):
    """EfficientViT writes V P^T, and each head takes in what the head before it gave."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(())
        for head in range(self.heads):
            q, k, v = (t[:, head].transpose(-2, -1) for t in self.split(x + y))
            probabilities = (q.transpose(-2, -1) @ k).softmax(dim=-1)
            y = (v @ probabilities.transpose(-2, -1)).transpose(-2, -1).repeat(1, 1, 3)
        return y


def test_probabilities_may_stand_on_the_right() -> None:
    model = Transposed()
    converted = of.convert(model, HARDWARE, sample=TOKENS)
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 3, "P V": 3}
    values = [op for op in crossbars(converted).operands if op.dynamic and op.name.endswith("V")]
    assert [(op.axis, op.signed) for op in values] == [("V", False)] * 3
    assert exact_error(model, converted, TOKENS[:2, :5]) < 1e-4


class Banded(Heads):
    """Longformer multiplies ones with its mask to make a band of it, and collects scores in a tensor of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = x.new_ones(x.shape[:2]) * torch.finfo(x.dtype).min * (x[..., 0] > 2)
        hidden = torch.einsum("bmi,bni->bmn", mask.new_ones(mask.shape)[..., None], mask[..., None])
        scores = q.new_zeros(len(x), self.heads, x.shape[1], x.shape[1])
        scores[:, :, :] = q @ k.transpose(-2, -1)
        return (scores + hidden[:, None]).softmax(dim=-1) @ v


def test_a_product_with_a_constant_stays_digital_and_is_listed() -> None:
    model = Banded()
    with pytest.warns(StaysDigital):
        converted = of.convert(model, HARDWARE, sample=TOKENS)
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 1, "P V": 1}
    assert [(row.product, row.reason) for row in of.capture_table(converted).digital] == [("einsum", CONSTANT)]


class Buffered(Heads):
    """A cache by hand: K and V are copied into buffers, which then are no constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(3, 3, 9, 8))
        self.register_buffer("values", torch.zeros(3, 3, 9, 8))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        self.keys[:, :, : x.shape[1]] = k
        self.values.narrow(2, 0, x.shape[1]).copy_(v)
        scores = q @ self.keys[:, :, : x.shape[1]].transpose(-2, -1)
        return scores.softmax(dim=-1) @ self.values[:, :, : x.shape[1]]


def test_a_buffer_that_a_model_writes_into_is_no_constant() -> None:
    converted = of.convert(Buffered(), HARDWARE, sample=TOKENS)
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 1, "P V": 1}


class Learned(nn.Module):
    """DETR, Perceiver and pooling heads have queries that are learned: the same for every sample."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.queries, self.fused = nn.Parameter(torch.randn(4, 24)), fused
        self.q, self.k = nn.Linear(24, 24), nn.Linear(24, 24)
        self.pool = nn.MultiheadAttention(24, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(len(x), -1, -1)
        own = self.q(queries)[:, None]
        if self.fused:
            queries = queries + F.scaled_dot_product_attention(own, own, own).squeeze(1)
        return self.pool(queries, self.k(x), x)[0]


@pytest.mark.parametrize("fused", [True, False])
def test_learned_queries_are_read_for_every_sample(fused: bool) -> None:
    model = Learned(fused)
    converted = of.convert(model, READ_NOISE, sample=TOKENS)
    assert exact_error(model, converted, TOKENS[:2, :5]) < 1e-4
    crossbars(converted).state.rounded = False
    with torch.no_grad(), of.samples([4, 5, 6]):
        together = converted(TOKENS)
    with torch.no_grad(), of.samples([6]):
        torch.testing.assert_close(converted(TOKENS[2:]), together[2:], rtol=1e-3, atol=1e-4)


class Bank(nn.Module):
    """Experts in one parameter, each of which sees some tokens of some samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bank, self.head = nn.Parameter(torch.randn(2, 24, 24) / 5), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        first = tokens[:, 0] > 0
        y = torch.zeros_like(tokens)
        for expert, chosen in enumerate((first, ~first)):
            y[chosen] = tokens[chosen] @ self.bank[expert].T
        return self.head(y.view_as(x))


class ByItself(nn.Module):
    """WavLM calls the function of PyTorch's multi-head attention past the module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.MultiheadAttention(24, 4), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, m = x.transpose(0, 1), self.inner
        given = (x, x, x, 24, 4, m.in_proj_weight, m.in_proj_bias, None, None, False, 0.0)
        y, _ = F.multi_head_attention_forward(*given, m.out_proj.weight, m.out_proj.bias)
        return self.head(y)


@pytest.mark.filterwarnings("ignore::ohmformer.nn.convert.convert.StaysDigital")
@pytest.mark.parametrize(("model", "pattern"), [(Bank(), "bank"), (ByItself(), "")])
def test_what_is_refused_names_a_rule_that_helps(model: nn.Module, pattern: str) -> None:
    with pytest.raises(of.BadInput, match=r"keep it\s+digital") as refusal:
        of.convert(model, READ_NOISE, sample=TOKENS)
    assert f"rules={{{pattern!r}: None}}" in str(refusal.value)
    converted = of.convert(model, READ_NOISE, sample=TOKENS, rules={pattern: None})
    assert exact_error(model, converted, TOKENS[:2, :5]) < 1e-4
    assert "head" in [row.module for row in of.capture_table(converted).rows if not row.reason]


class Decomposed(Heads):
    """SAM and ViTDet add the product of queries with a table of relative positions, all rows in one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 7, 8))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        places = torch.einsum("bqd,qkd->bqk", q.flatten(0, 1), self.table * 2).unflatten(0, q.shape[:2])
        return (q @ k.transpose(-2, -1) + places).softmax(dim=-1) @ v


def test_a_product_with_computed_weights_stays_digital_where_samples_cannot_be_told() -> None:
    model = Decomposed()
    with pytest.warns(StaysDigital, match="computed"):
        converted = of.convert(model, HARDWARE, sample=TOKENS)
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 1, "P V": 1}
    assert exact_error(model, converted, TOKENS[:2]) < 1e-4


class SharedProjection(Heads):
    """DeBERTa may project positions, which are the same for all samples, by the very layer that projects tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 7, 24))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        place = self.q(self.places).unflatten(-1, (-1, 8)).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) + q @ place.transpose(-2, -1)
        return scores.softmax(dim=-1) @ v


def test_a_layer_may_be_used_for_samples_and_for_what_they_share() -> None:
    converted = of.convert(SharedProjection(), READ_NOISE, sample=TOKENS)
    crossbars(converted).state.rounded = False
    with torch.no_grad(), of.samples([4, 5, 6]):
        together = converted(TOKENS)
    with torch.no_grad(), of.samples([6]):
        torch.testing.assert_close(converted(TOKENS[2:]), together[2:], rtol=1e-3, atol=1e-4)


class Translating(nn.Module):
    """An encoder and a decoder that write their products out, and whose masks are known by name only."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.encoder = nn.Embedding(20, 24), Heads()
        self.decoder, self.cross = Heads(), Heads()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        hidden = (1 - attention_mask[:, None, None].float()) * -1e9
        x, y = self.words(input_ids), self.words(decoder_input_ids)
        later = torch.ones(y.shape[1], y.shape[1]).triu(1) * -1e9
        layers = (self.encoder, 0, 0, hidden), (self.decoder, 1, 1, later), (self.cross, 1, 0, hidden)
        for layer, own, seen, mask in layers:
            q, (_, k, v) = layer.split((x, y)[own])[0], layer.split((x, y)[seen])
            z = ((q @ k.transpose(-2, -1) + mask).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
            x, y = (x, y + z) if own else (x + z, y)
        return y


@pytest.mark.parametrize("level", ["noise", "array"])
def test_padding_of_an_encoder_is_not_that_of_a_decoder_of_the_same_length(level: str) -> None:
    torch.manual_seed(0)
    ids, targets = torch.randint(20, (3, 7)), torch.randint(20, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    converted = of.convert(Translating(), READ_NOISE, sample=(ids, mask, targets), level=level)
    crossbars(converted).state.rounded = False
    with torch.no_grad(), of.samples([4, 5, 6]):
        together = converted(ids, mask, targets)
    with torch.no_grad(), of.samples([5]):
        own = slice(0, 4 if level == "noise" else 7)
        alone = converted(ids[1:2, own], mask[1:2, own], targets[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-4)


class Grouped(Heads):
    """A decoder with grouped queries, which takes a mask of padding."""

    def __init__(self) -> None:
        super().__init__(heads=4, groups=2)
        self.words = nn.Embedding(20, 24)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids)
        mask = attention_mask[:, None, None].bool() & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(*self.split(x), attn_mask=mask, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_draws_no_read_noise_of_grouped_queries(side: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(20, (3, 7))
    mask = torch.ones_like(ids)
    kept = slice(0, 4) if side == "right" else slice(3, 7)
    mask[1] = 0
    mask[1, kept] = 1
    hardware = of.replace(READ_NOISE, "attention.array.cell.read_noise", {"kind": "proportional", "sigma": 0.1})
    converted = of.convert(Grouped(), hardware, sample=(ids, mask))
    crossbars(converted).state.rounded = False
    with torch.no_grad(), of.samples([4, 5, 6]):
        together = converted(ids, mask)
    with torch.no_grad(), of.samples([5]):
        alone = converted(ids[1:2, kept], mask[1:2, kept])
    torch.testing.assert_close(alone, together[1:2, kept], rtol=1e-3, atol=1e-4)


class Sinks(Heads):
    """GPT-OSS adds a learned score to the keys, which takes part in the softmax and is then dropped."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        later = torch.ones(x.shape[1], x.shape[1]).triu(1) * -1e9
        scores = q @ k.transpose(-2, -1) + later
        with_sinks = torch.cat([scores, scores.new_ones(*scores.shape[:-1], 1)], dim=-1)
        return with_sinks.softmax(dim=-1)[..., :-1] @ v


def test_attention_with_sinks_is_causal() -> None:
    converted = of.convert(Sinks(), HARDWARE, sample=TOKENS)
    assert [operand.causal for operand in crossbars(converted).operands if operand.dynamic] == [True, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_gives_what_it_gave_before_and_its_gradients() -> None:
    model = of.convert(OneHead(groups=1), HARDWARE, sample=TOKENS)
    compiled = torch.compile(model, backend="eager")
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        with of.samples([4, 5, 6]):
            y = run(TOKENS)
            y.square().mean().backward()
        gradients.append((y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)))
    for before, after in zip(*gradients, strict=True):
        torch.testing.assert_close(before, after)
