"""The workload of a real model: every product, with the shapes that the model itself shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ohmformer as of
from ohmformer import BadInput
from ohmformer.tracing.operations import LeftOut
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul, Workload
from tests.nn.hub import on_meta
from tests.nn.models import SelfAttention, vit

X = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(0))
MEMORY = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))


def dynamic(work: Workload) -> list[DynamicMatMul]:
    return [op for op in work.ops if isinstance(op, DynamicMatMul)]


def of_kind(work: Workload, kind: type[Op]) -> list[Op]:
    return [op for op in work.ops if isinstance(op, kind)]


def stages(work: Workload) -> list[tuple[int | None, list[str]]]:
    return [(layer.index, list(layer.stages())) for layer in work.layers()]


LAYER = ["qkv", "key", "value", "output", "ffn1", "ffn2"]


def test_a_vision_transformer() -> None:
    model = vit()
    work = of.trace(model, torch.randn(2, 1, 12, 12))
    tokens = work.tokens
    assert (work.title, work.phase, work.batch, work.causal) == ("VisionTransformer", "encode", 2, False)
    assert stages(work) == [(None, ["embedding"]), (0, LAYER), (1, LAYER), (None, ["head"])]
    key, value = dynamic(work)[:2]
    assert key == DynamicMatMul(key.name, "key", 0, "attention.key", 2, 3, 3, tokens, 8, tokens, tokens)
    assert (value.role, value.inputs, value.outputs, value.written) == ("attention.value", tokens, 8, tokens)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.randn(2, 1, 12, 12))
    assert work.macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_encoder_of_pytorch(batch_first: bool, norm_first: bool) -> None:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=batch_first, norm_first=norm_first)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    work = of.trace(make().eval(), X)
    B, M = (3, 7) if batch_first else (7, 3)
    assert (work.batch, work.tokens) == (B, M)
    assert [stage for _, stage in stages(work)] == [LAYER, LAYER]
    assert {(op.batch, op.heads, op.queries, op.written) for op in dynamic(work)} == {(B, 4, M, M)}
    assert work.macs == 2 * B * (4 * M * 24 * 24 + 2 * M * 24 * 48 + 2 * 24 * M * M)
    assert of_kind(work, Softmax)[0] == Softmax("layers.0.self_attn", "key", 0, B * 4 * M, M, 4)
    assert sum(op.vectors for op in of_kind(work, Norm)) == 4 * B * M
    assert of.trace(on_meta(make), X) == work


def test_an_encoder_with_decoder_of_pytorch() -> None:
    def make() -> nn.Module:
        return nn.Transformer(24, 4, 1, 1, 48, batch_first=True)

    sample = {"src": X, "tgt": MEMORY, "tgt_mask": nn.Transformer.generate_square_subsequent_mask(5)}
    work = of.trace(make(), sample)
    decoder = ["qkv", "key", "value", "output", "cross_qkv", "cross_key", "cross_value", "cross_output", "ffn1", "ffn2"]
    assert stages(work) == [(0, LAYER), (None, ["between"]), (1, decoder), (None, ["head"])]
    keys = [op for op in dynamic(work) if op.role == "attention.key"]
    assert [(op.queries, op.tokens, op.causal, op.across) for op in keys] == [
        (7, 7, False, False),
        (5, 5, True, False),
        (5, 7, False, True),
    ]
    assert work.phase == "prefill"
    assert of.trace(on_meta(make), sample) == work


def test_multihead_attention_on_other_tokens() -> None:
    work = of.trace(
        nn.MultiheadAttention(24, 4, batch_first=True, kdim=8, vdim=6), (X, MEMORY[..., :8], MEMORY[..., :6])
    )
    weights = [(op.vectors, op.inputs, op.outputs) for op in work.ops if isinstance(op, StaticMatMul)]
    assert weights == [(21, 24, 24), (15, 8, 24), (15, 6, 24), (21, 24, 24)]
    assert all(op.across and (op.queries, op.tokens) == (7, 5) for op in dynamic(work))


class Expanded(SelfAttention):
    """Grouped queries as most models write them: each head of K and V is copied for its group."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (layer(x).unflatten(-1, (self.groups, -1)).transpose(1, 2) for layer in (self.k, self.v))
        k = k[:, :, None].expand(-1, -1, self.heads // self.groups, -1, -1).reshape(q.shape)
        v = v.repeat_interleave(self.heads // self.groups, dim=1)
        scores = (q @ k.transpose(2, 3)).masked_fill(torch.ones(7, 7).triu(1).bool().to(x.device), -torch.inf)
        return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("meta", [False, True])
def test_copies_of_heads_count_once(meta: bool) -> None:
    model = on_meta(Expanded, groups=2) if meta else Expanded(groups=2)
    model.is_causal = True
    work = of.trace(model, X, phase="prefill")
    assert {(op.heads, op.kv_heads, op.group, op.causal) for op in dynamic(work)} == {(4, 2, 2, True)}
    assert [op for op in work.ops if isinstance(op, Softmax)] == [Softmax("", "key", None, 3 * 4 * 7, 7, 4)]


class Reduced(SelfAttention):
    """Queries of all tokens, keys and values of a shorter sequence made by another product."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.out = nn.Linear(7, 3), nn.Linear(24, 24)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        short = self.reduce(x.transpose(1, 2)).transpose(1, 2)
        k, v = (layer(short).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_what_keys_wait_for_comes_first() -> None:
    work = of.trace(Reduced(), X)
    assert [(op.name, op.stage) for op in work.ops if not isinstance(op, Softmax)] == [
        ("reduce", "pre1"),
        ("q", "qkv"),
        ("k", "qkv"),
        ("v", "qkv"),
        (".K", "key"),
        (".V", "value"),
        ("out", "output"),
    ]
    assert {(op.queries, op.tokens, op.across) for op in dynamic(work)} == {(7, 3, False)}


def test_a_sample_of_zeros_does_not_make_heads_equal() -> None:
    model = SelfAttention()
    for layer in (model.q, model.k, model.v):
        nn.init.zeros_(layer.bias)
    assert {op.kv_heads for op in dynamic(of.trace(model, torch.zeros_like(X)))} == {4}


class Experts(nn.Module):
    """A bank of experts, of which each token takes one."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(4, 6, 24))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        choice = torch.arange(len(flat), device=x.device) % 2
        y = flat.new_zeros(len(flat), 6)
        for e in range(2):
            y[choice == e] = F.linear(flat[choice == e], self.bank[e])
        return y


def test_experts_that_no_token_takes_are_stored_all_the_same() -> None:
    work = of.trace(Experts(), X)
    found = [(op.name, op.vectors, op.inputs, op.outputs) for op in work.ops if isinstance(op, StaticMatMul)]
    assert found == [("bank[0]", 11, 24, 6), ("bank[1]", 10, 24, 6), ("bank[2]", 0, 24, 6), ("bank[3]", 0, 24, 6)]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 24)
        self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
        self.two.weight = self.one.weight
        self.head = nn.Linear(24, 11)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.two(F.gelu(self.one(self.words(ids)))))


def test_tied_weights_are_stored_once() -> None:
    work = of.trace(Tied(), torch.zeros(2, 5, dtype=torch.long))
    weights = [op for op in work.ops if isinstance(op, StaticMatMul)]
    assert [(op.name, op.shared_with) for op in weights] == [("one", ""), ("two", "one"), ("head", "")]
    assert of_kind(work, Lookup) == [Lookup("words", "embedding", None, 10, 24, 11)]
    assert of_kind(work, Elementwise) == [Elementwise("", "embedding", None, 240)]


def test_convolutions_are_products_of_patches() -> None:
    work = of.trace(nn.Conv2d(8, 12, 3, groups=4), torch.randn(2, 8, 6, 6))
    weights = [op for op in work.ops if isinstance(op, StaticMatMul)]
    assert [(op.vectors, op.inputs, op.outputs) for op in weights] == [(2 * 16, 18, 3)] * 4


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head, self.gram = nn.GRU(24, 8, batch_first=True), nn.Linear(8, 2), Gram()

    def forward(self, x: Tensor, use: str = "gram") -> Tensor:
        return self.gram(self.head(x[..., :8])) if use == "gram" else self.head(self.gru(x)[0])


class Gram(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


def test_what_is_not_understood_is_refused_unless_a_rule_keeps_it_digital() -> None:
    with pytest.raises(BadInput, match=r"gram: .* is not understood; keep it digital with rules=\{'gram': None\}"):
        of.trace(Strange(), X)
    work = of.trace(Strange(), X, rules={"gram": None})
    assert work.ops[-1] == Elementwise("gram", "embedding2", None, 3 * 7 * 7 * 2, "add")
    with pytest.raises(BadInput, match=r"gru: .* is not understood; leave it out"):
        of.trace(Strange(), (X, "gru"))
    with pytest.warns(LeftOut, match="gru"):
        of.trace(Strange(), (X, "gru"), rules={"gru": None})
    with pytest.raises(BadInput, match="matches no module"):
        of.trace(Strange(), X, rules={"gram": None, "nothing": None})


def test_rules_keep_weights_and_attention_digital() -> None:
    model = vit()
    sample = torch.randn(2, 1, 12, 12)
    whole, some = of.trace(model, sample), of.trace(model, sample, rules={"*.K": None, "head": None})
    lost = [op for op in some.ops if isinstance(op, Elementwise) and op not in whole.ops]
    assert len(lost) == 3
    assert some.macs + sum(op.elements for op in lost) == whole.macs
    assert [op.stage for op in some.ops] == [op.stage for op in whole.ops]


@pytest.mark.parametrize("rules", [{"*": None}, {"*.K": None}, {"*.V": None}, {"*.K": None, "*.V": None}])
def test_rules_change_neither_tokens_nor_batch_nor_phase(rules: dict[str, None]) -> None:
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 48, batch_first=True), 2).eval()
    inputs = {"tgt": X, "memory": MEMORY, "tgt_mask": nn.Transformer.generate_square_subsequent_mask(7)}
    for model, sample in ((vit(), torch.randn(2, 1, 12, 12)), (decoder, inputs), (SelfAttention(is_causal=True), X)):
        found = [of.trace(model, sample, rules=some) for some in (None, rules)]
        whole, ruled = ((work.tokens, work.batch, work.phase, work.causal) for work in found)
        assert ruled == whole


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv1d(7, 7, 1), nn.BatchNorm1d(7), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    of.trace(model, X)
    assert all(module.training for module in model.modules())
    assert all(bool((value == before[name]).all()) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phase": "train"}, "phase = 'train'"),
        ({"phase": "decode", "context": 4}, "context = 4: SelfAttention takes no past_key_values; leave context out"),
        ({"phase": "encode", "context": 4}, "context = 4: encoding has no cache"),
        ({"context": -1}, "context = -1"),
        ({"phase": "prefill"}, "phase = 'prefill': the model has no causal mask"),
        ({"rules": ["a"]}, "rules is a list"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        of.trace(SelfAttention(), X, **arguments)  # type: ignore[arg-type]


def test_other_models_and_samples_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="phase = 'encode': the model has a causal mask"):
        of.trace(SelfAttention(is_causal=True), X, phase="encode")
    with pytest.raises(BadInput, match=r"no such model"):
        of.trace("bert", X)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="sample is empty"):
        of.trace(SelfAttention(), X[:0])
    with pytest.raises(BadInput, match="nothing to trace"):
        of.trace(nn.ReLU(), X)
    converted = of.convert(vit(), of.load("clipformer_tcad_2024"), sample=torch.randn(2, 1, 12, 12))
    with pytest.raises(BadInput, match="trace the original"):
        of.trace(converted, torch.randn(2, 1, 12, 12))


def test_layers_that_run_several_times_are_several_layers() -> None:
    class Universal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)])

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.layers[0](x)
            return x

    work = of.trace(Universal(), X)
    assert stages(work) == [(0, LAYER), (1, LAYER), (2, LAYER)]
    first, second = (layer.ops[0] for layer in work.layers()[:2])
    assert second == replace(first, layer=1, shared_with=first.name)  # type: ignore[arg-type, call-arg]


class Doubled(nn.Module):
    """A layer whose weights are computed from those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.one(x), self.two.weight * 2)


def test_computed_weights_are_named_as_by_convert() -> None:
    sample = torch.randn(2, 3, 8)
    with pytest.warns(LeftOut) as traced:
        work = of.trace(Doubled(), sample)
    with pytest.warns(of.StaysDigital) as converted:
        of.convert(Doubled().eval(), of.load("clipformer_tcad_2024"), sample=sample, level="noise")
    reason = "the first in the model itself: its weights are computed from other parameters"
    assert reason in str(traced[0].message)
    assert reason in str(converted[0].message)
    assert work.ops[-1] == Elementwise("", "embedding2", None, 2 * 3 * 8 * 8, "add")


def test_a_sample_of_text_is_named() -> None:
    with pytest.raises(BadInput, match=r"^trace: sample is a str, 'x'; give a batch"):
        of.trace(Doubled(), "x")
