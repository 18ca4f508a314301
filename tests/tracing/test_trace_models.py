"""Workloads of models of Hugging Face and timm: with weights and without, and as an independent count has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import ohmformer as of
from ohmformer import BadInput
from ohmformer.workload.spec import DynamicMatMul, Op, Softmax, StaticMatMul, Workload
from tests.nn.hub import library, on_meta

pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.randint(0, 100, (2, 16), generator=torch.Generator().manual_seed(0))
WORDS, IMAGES, TARGET = (
    {"input_ids": IDS},
    {"pixel_values": torch.randn(2, 3, 32, 32)},
    {"decoder_input_ids": IDS[:, :3]},
)
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
ENDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
TEXT = {**SIZES, **ENDS, "vocab_size": 100}
WHISPER = {
    **{f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 128))},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 64, "vocab_size": 100},
    **{"max_source_positions": 20, "num_mel_bins": 8, "decoder_start_token_id": 1, **ENDS},
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
OLD = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, **ENDS}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}

ENCODERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Tensor]]] = {
    "bert": ("BertModel", "BertConfig", TEXT, WORDS),
    "vit": ("ViTForImageClassification", "ViTConfig", VISION, IMAGES),
    "deit": ("DeiTForImageClassification", "DeiTConfig", VISION, IMAGES),
    "swin": ("SwinForImageClassification", "SwinConfig", SWIN, IMAGES),
    "deberta": (
        "DebertaV2Model",
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": ["p2c"]},
        WORDS,
    ),
}
DECODERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Tensor]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**TEXT, "num_key_value_heads": 2}, WORDS),
    "falcon": (
        "FalconForCausalLM",
        "FalconConfig",
        {**TEXT, "num_kv_heads": 2, "new_decoder_architecture": True},
        WORDS,
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", OLD, WORDS),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100},
        WORDS,
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5, WORDS | TARGET),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        WHISPER,
        {"input_features": torch.randn(2, 8, 40)} | TARGET,
    ),
}
MIXTRAL = ("MixtralForCausalLM", "MixtralConfig", {**TEXT, "num_key_value_heads": 2, "num_local_experts": 4}, WORDS)


def make(entry: tuple[str, str, dict[str, Any], Any], *, meta: bool = False, attention: str = "") -> Any:
    transformers = library("transformers")
    config = getattr(transformers, entry[1])(**entry[2])
    if attention:
        config._attn_implementation = attention
    torch.manual_seed(0)
    build = getattr(transformers, entry[0])
    return on_meta(build, config) if meta else build(config).eval()


def dynamic(work: Workload) -> set[tuple[Any, ...]]:
    return {
        (op.stage, op.heads, op.kv_heads, op.queries, op.tokens, op.written, op.causal, op.across)
        for op in work.ops
        if isinstance(op, DynamicMatMul) and op.role == "attention.key"
    }


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
@pytest.mark.slow
def test_macs_are_those_of_an_independent_count_and_need_no_weights(name: str) -> None:
    entry = (ENCODERS | DECODERS)[name]
    attention = "" if name in ("bloom", "deberta") else "eager"
    model = make(entry, attention=attention)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    work = of.trace(model, entry[3])
    with FlopCounterMode(display=False) as counter:
        model(**entry[3])
    assert work.macs == counter.get_total_flops() // 2
    assert work.phase == ("encode" if name in ENCODERS else "prefill")
    assert of.trace(make(entry, meta=True, attention=attention), entry[3]) == work


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
@pytest.mark.slow
def test_fused_attention_asks_for_the_same(name: str) -> None:
    entry = (ENCODERS | DECODERS)[name]
    works = [of.trace(make(entry, meta=meta), entry[3]) for meta in (False, True)]
    assert works[0] == works[1]
    if name not in ("bloom", "deberta"):
        written_out = of.trace(make(entry, meta=True, attention="eager"), entry[3])
        assert works[0].macs == written_out.macs
        assert dynamic(works[0]) == dynamic(written_out)


def test_what_attention_holds_and_writes() -> None:
    found = {name: dynamic(of.trace(make(entry, meta=True), entry[3])) for name, entry in (ENCODERS | DECODERS).items()}
    assert found["bert"] == {("key", 4, 4, 16, 16, 16, False, False)}
    assert found["vit"] == {("key", 4, 4, 17, 17, 17, False, False)}
    assert found["swin"] == {("key", heads, heads, 16, 16, 16, False, False) for heads in (2, 4)}
    assert found["llama"] == found["falcon"] == {("key", 4, 2, 16, 16, 16, True, False)}
    assert found["gpt2"] == found["bloom"] == {("key", 4, 4, 16, 16, 16, True, False)}
    assert found["t5"] == {
        ("key", 4, 4, 16, 16, 16, False, False),
        ("key", 4, 4, 3, 3, 3, True, False),
        ("cross_key", 4, 4, 3, 16, 16, False, True),
    }


def test_windows_count_as_samples() -> None:
    work = of.trace(make(ENCODERS["swin"], meta=True), IMAGES)
    keys = [op for op in work.ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    assert [(op.layer, op.batch, op.heads) for op in keys] == [(0, 32, 2), (1, 32, 2), (2, 8, 4), (3, 8, 4)]
    assert (work.batch, work.tokens) == (2, 256)


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("name", DECODERS)
def test_a_step_of_a_decoder_writes_one_token(name: str, meta: bool) -> None:
    entry = DECODERS[name]
    field = "decoder_input_ids" if "decoder_input_ids" in entry[3] else "input_ids"
    step = entry[3] | {field: IDS[:, :1]}
    work = of.trace(make(entry, meta=meta), step, phase="decode", context=9)
    groups = 2 if name in ("llama", "falcon") else 4
    source = {"t5": 16, "whisper": 20}.get(name)
    cross = set() if source is None else {("cross_key", 4, 4, 1, source, 0, False, True)}
    assert dynamic(work) == {("key", 4, groups, 1, 10, 1, True, False)} | cross
    assert (work.phase, work.batch, work.tokens, work.context, work.causal) == ("decode", 2, 1, 9, True)
    assert {op.vectors for op in work.ops if isinstance(op, StaticMatMul)} == {2}
    assert min(op.layer for op in work.ops if op.layer is not None) == (0 if source is None else 2)


def test_a_cache_of_the_sample() -> None:
    transformers = library("transformers")
    model = make(DECODERS["llama"])
    growing = model(input_ids=IDS, use_cache=True).past_key_values
    fixed = transformers.StaticCache(config=model.config, max_cache_len=32)
    model(input_ids=IDS, past_key_values=fixed)
    for cache in (growing, fixed):
        work = of.trace(model, {"input_ids": IDS[:, :1], "past_key_values": cache})
        assert dynamic(work) == {("key", 4, 2, 1, 17, 1, True, False)}
        assert (work.phase, work.context) == ("decode", 16)
    assert growing.get_seq_length() == 16
    with pytest.raises(BadInput, match="context = 4: past_key_values of the sample hold 16 tokens"):
        of.trace(model, {"input_ids": IDS[:, :1], "past_key_values": growing}, context=4)
    with pytest.raises(BadInput, match="phase = 'decode': the sample has 16 tokens"):
        of.trace(model, IDS, phase="decode")
    one = of.trace(model, (IDS[:, :1],), phase="decode", context=5)
    assert one == of.trace(model, {"input_ids": IDS[:, :1]}, phase="decode", context=5)
    with pytest.raises(BadInput, match="sample has no input_ids"):
        of.trace(model, {"inputs_embeds": torch.randn(2, 1, 64)}, phase="decode", context=5)


def test_prefill_that_goes_on() -> None:
    work = of.trace(make(DECODERS["llama"], meta=True), WORDS, phase="prefill", context=9)
    assert dynamic(work) == {("key", 4, 2, 16, 25, 16, True, False)}


@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_experts_compute_the_tokens_that_are_routed_to_them(experts: str) -> None:
    entry = (*MIXTRAL[:2], MIXTRAL[2] | {"experts_implementation": experts}, MIXTRAL[3])
    works = [of.trace(make(entry, meta=meta), WORDS) for meta in (False, True)]
    assert works[0].macs == works[1].macs
    for work, even in zip(works, (False, True), strict=True):
        banks = [op for op in work.ops if isinstance(op, StaticMatMul) and op.layer == 0 and "gate_up" in op.name]
        assert [op.name[-3:] for op in sorted(banks, key=lambda op: op.name)] == ["[0]", "[1]", "[2]", "[3]"]
        assert sum(op.vectors for op in banks) == 2 * 16 * 2
        assert ({op.vectors for op in banks} == {16}) == even
        assert {op.stage for op in banks} == {"ffn2"}


def test_a_mask_of_the_sample_needs_no_values() -> None:
    sample = WORDS | {"attention_mask": torch.ones_like(IDS)}
    entry = DECODERS["llama"]
    assert of.trace(make(entry, meta=True), sample) == of.trace(make(entry), sample)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit_tiny_patch16_224", {"img_size": 32, "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "depths": (2, 2), "num_heads": (2, 4)}),
        ("eva02_tiny_patch14_224", {"img_size": 28, "depth": 2}),
    ],
)
def test_models_of_timm(name: str, options: dict[str, Any]) -> None:
    timm = library("timm")
    image = torch.randn(2, 3, options["img_size"], options["img_size"])
    model = timm.create_model(name, **options).eval()
    work = of.trace(model, image)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(image)
    assert work.macs == counter.get_total_flops() // 2
    assert of.trace(on_meta(timm.create_model, name, **options), image) == work
    assert (work.phase, work.batch) == ("encode", 2)


def _products(work: Workload) -> list[Op]:
    return [replace(op, name="") for op in work.ops if isinstance(op, (StaticMatMul, DynamicMatMul, Softmax))]


TABLES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "bert": (
        "BertModel",
        "BertConfig",
        {},
        {"kind": "encoder", "layers": 12, "width": 768, "heads": 12, "hidden": 3072, "entries": 30522, "tokens": 512},
    ),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"hidden_size": 4096, "num_hidden_layers": 32, "num_key_value_heads": 8, "intermediate_size": 14336},
        {"kind": "decoder", "layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "hidden": 14336, "gated": True}
        | {"entries": 32000, "head": 32000, "tokens": 128},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
        {"kind": "encoder_decoder", "layers": 12, "width": 768, "heads": 12, "hidden": 3072, "tokens": 128}
        | {"entries": 32128, "head": 32128},
    ),
}


@pytest.mark.parametrize(
    ("name", "phase", "context"),
    [("bert", "encode", 0), ("llama", "prefill", 0), ("llama", "decode", 50)]
    + [("t5", phase, context) for phase, context in (("encode", 0), ("prefill", 0), ("decode", 50))],
)
@pytest.mark.slow
def test_a_traced_model_equals_the_table_of_its_dimensions(name: str, phase: Any, context: int) -> None:
    tables = pytest.importorskip("ohmformer.workload.shapes")
    table = tables.Transformer(title=name, **TABLES[name][3])
    expected = tables.shapes(table, batch=2, phase=phase, context=context)
    one = name == "llama" and phase == "decode"
    sample: dict[str, Any] = {"input_ids": torch.zeros(2, 1 if one else table.tokens, dtype=torch.long)}
    if name == "llama":
        sample["logits_to_keep"] = 1
    options = {"add_pooling_layer": False} if name == "bert" else {}
    transformers = library("transformers")
    config = getattr(transformers, TABLES[name][1])(**TABLES[name][2])
    model = on_meta(getattr(transformers, TABLES[name][0]), config, **options)
    work = of.trace(model, sample, phase=phase, context=context)
    assert _products(work) == _products(expected)
    for field in ("phase", "batch", "tokens", "context", "causal"):
        assert getattr(work, field) == getattr(expected, field)
