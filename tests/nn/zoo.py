"""Tiny models of published families, with random weights: what `convert` is tried on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.nn.hub import library

Sample = Callable[[int], Any]
"""How many samples -> a batch of them, of another length for another number."""


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: as people say.
        source: the package that has it.
        make: a tiny model of it.
        sample: batches for it.
        rules: what it needs, where it is refused without.
    """

    name: str
    source: str
    make: Callable[[], nn.Module]
    sample: Sample
    rules: dict[str, None] = field(default_factory=dict)


def sharpened(model: nn.Module) -> nn.Module:
    """The model with weights so large that attention attends to something; none is zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            drawn = torch.randn(p.shape, generator=generator)
            if p.dim() > 1 and "embed" not in name:
                p.copy_(drawn / max(1, p.shape[1] if p.dim() == 3 else p[0].numel()) ** 0.5)
            elif not bool(p.any()):
                p.copy_(drawn / 10)
    return model.eval()


def _hugging_face(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = library("transformers")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        return made

    return make


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        timm = library("timm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = timm.create_model(name, num_classes=7, **options)
        return made

    return make


def _tokens(B: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, 90, (B, 6 + B))}


def _pairs(B: int) -> dict[str, Tensor]:
    return {**_tokens(B), "decoder_input_ids": torch.randint(5, 90, (B, 3 + B))}


def _images(size: int = 32, name: str = "pixel_values") -> Sample:
    def batch(B: int) -> Any:
        pixels = torch.randn(B, 3, size, size)
        return {name: pixels} if name else pixels

    return batch


def _both(B: int) -> dict[str, Tensor]:
    return {**_tokens(B), **_images()(B)}


def _spectra(B: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(B, 8, 40), "decoder_input_ids": torch.randint(5, 90, (B, 3 + B))}


def _waves(B: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(B, 320 + 40 * B)}


def _heard(B: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(B, 3000), "decoder_input_ids": torch.randint(5, 90, (B, 3 + B))}


def _long(B: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, 90, (B, 64))}


def _video(B: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(B, 4, 3, 32, 32)}


def _vectors(B: int) -> Tensor:
    return torch.randn(B, 4 + B, 24)


WORDS = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
GROUPED = {**WORDS, "num_key_value_heads": 2}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PATCHES = {k: v for k, v in WORDS.items() if k != "vocab_size"} | {"image_size": 32, "patch_size": 8}
WAVES = {**WORDS, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "feat_extract_norm": "layer"}
WAVES |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
SEQUENCES = {"vocab_size": 100, "d_model": 32, "decoder_start_token_id": 1, **ENDS} | {
    f"{part}_{what}": n
    for part in ("encoder", "decoder")
    for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
}
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 64}
GPT = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
TEXT = {**WORDS, "max_position_embeddings": 20, "eos_token_id": 2}
DISENTANGLED = {**WORDS, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
SAM = {**PATCHES, "image_size": 64, "window_size": 3, "global_attn_indexes": [1], "output_channels": 16, "mlp_dim": 64}
MAMBA = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
TWO = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4, "query_pre_attn_scalar": 8}
ALTERNATING = {**GROUPED, **ENDS, **TWO, "head_dim": 8}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
HYBRID = {**GROUPED, **ENDS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
PERCEIVER = {"num_latents": 4, "d_latents": 16, "d_model": 24, "num_blocks": 1, "num_self_attends_per_block": 2}
PERCEIVER |= {"num_self_attention_heads": 2, "num_cross_attention_heads": 2}


def _hf(
    name: str, prefix: str, head: str, options: dict[str, Any], sample: Sample = _tokens, **rules: dict[str, None]
) -> Family:
    make = _hugging_face(prefix + head, rules.pop("config", None) or f"{prefix}Config", **options)  # type: ignore[arg-type]
    return Family(name, "transformers", make, sample, rules.get("rules", {}))


def _vision(name: str, model: str, size: int, rules: dict[str, None] | None = None, **options: Any) -> Family:
    return Family(name, "timm", _timm(model, **options), _images(size, ""), rules or {})


def _encoder(**options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(24, 4, 48, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=bool(options.get("batch_first")))


class Alone(nn.Module):
    """One `nn.MultiheadAttention` on one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention."""
        y: Tensor = self.attention(x, x, x)[0]
        return y


def _two(B: int) -> tuple[Tensor, Tensor]:
    return _vectors(B), torch.randn(B, 9, 24)


def _first_axis(B: int) -> Tensor:
    return _vectors(B).transpose(0, 1)


TORCH = [
    Family("nn.MultiheadAttention", "torch", Alone, _vectors),
    Family("nn.TransformerEncoder", "torch", lambda: _encoder(batch_first=True), _vectors),
    Family("nn.TransformerEncoder, batch_first=False", "torch", _encoder, _first_axis),
    Family(
        "nn.TransformerDecoder",
        "torch",
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 48, batch_first=True), 2),
        _two,
    ),
]
TIMM = [
    _vision("DeiT", "deit_small_patch16_224", 64, depth=1, img_size=64),
    _vision("ViT", "vit_base_patch16_224", 64, depth=1, img_size=64),
    _vision("Swin", "swin_tiny_patch4_window7_224", 56, depths=(2, 2), img_size=56, embed_dim=24, num_heads=(2, 4)),
    _vision("LeViT", "levit_128s", 224),
    _vision("EVA-02", "eva02_tiny_patch14_224", 56, depth=2, img_size=56),
    _vision("MobileViT", "mobilevit_xxs", 64),
    _vision("CaiT", "cait_xxs24_224", 64, depth=1, img_size=64),
    _vision("XCiT", "xcit_nano_12_p16_224", 64, depth=1, img_size=64),
    _vision("SHViT", "shvit_s1", 64),
    _vision("ConvNeXt", "convnext_atto", 64),
    _vision("EfficientViT", "efficientvit_b0", 64, rules={"stages.*.context_module.main": None}),
]
MODELS = [
    _hf("BERT", "Bert", "Model", WORDS),
    _hf("RoBERTa", "Roberta", "Model", {**WORDS, "pad_token_id": 1, "max_position_embeddings": 40}),
    _hf(
        "DistilBERT",
        "DistilBert",
        "Model",
        {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    _hf("DeBERTa", "Deberta", "Model", DISENTANGLED),
    _hf("DeBERTa-v2", "DebertaV2", "Model", {**DISENTANGLED, "position_buckets": 8, "share_att_key": True}),
    _hf("ALBERT", "Albert", "Model", {**WORDS, "embedding_size": 16}),
    _hf("ELECTRA", "Electra", "Model", {**WORDS, "embedding_size": 16}),
    _hf("MPNet", "MPNet", "Model", WORDS),
    _hf("XLNet", "XLNet", "Model", {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    _hf("Longformer", "Longformer", "Model", {**WORDS, "attention_window": 4, "pad_token_id": 0}),
    _hf("GPT-2", "GPT2", "LMHeadModel", GPT),
    _hf("GPT-NeoX", "GPTNeoX", "ForCausalLM", WORDS),
    _hf("OPT", "OPT", "ForCausalLM", {**WORDS, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    _hf("BLOOM", "Bloom", "ForCausalLM", {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    _hf("Falcon", "Falcon", "ForCausalLM", WORDS),
    _hf("Llama, grouped queries", "Llama", "ForCausalLM", GROUPED),
    _hf("Mistral, sliding window", "Mistral", "ForCausalLM", {**GROUPED, "sliding_window": 4}),
    _hf("Mixtral", "Mixtral", "ForCausalLM", {**GROUPED, "num_local_experts": 4}),
    _hf("Qwen 3", "Qwen3", "ForCausalLM", {**GROUPED, "head_dim": 8}),
    _hf("Gemma 2", "Gemma2", "ForCausalLM", {**GROUPED, "head_dim": 8, "attn_implementation": "eager"}),
    _hf("GPT-OSS", "GptOss", "ForCausalLM", {**GROUPED, "head_dim": 8, "num_local_experts": 4, "sliding_window": 4}),
    _hf("DeepSeek-V2", "DeepseekV2", "ForCausalLM", {**WORDS, **LATENT, **EXPERTS, "num_key_value_heads": 4}),
    _hf("RWKV", "Rwkv", "ForCausalLM", {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2}),
    _hf(
        "Mamba",
        "Mamba",
        "ForCausalLM",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        rules={"backbone.layers.*.mixer": None},
    ),
    _hf("T5", "T5", "ForConditionalGeneration", T5, _pairs),
    _hf("BART", "Bart", "ForConditionalGeneration", SEQUENCES, _pairs),
    _hf("Marian", "Marian", "MTModel", SEQUENCES, _pairs),
    _hf(
        "Whisper",
        "Whisper",
        "ForConditionalGeneration",
        {**SEQUENCES, "max_source_positions": 20, "num_mel_bins": 8},
        _spectra,
    ),
    _hf("wav2vec 2.0", "Wav2Vec2", "Model", WAVES, _waves),
    _hf("WavLM", "WavLM", "Model", WAVES, _waves, rules={"encoder.layers.*.attention": None}),
    _hf("ViT", "ViT", "Model", PATCHES, _images()),
    _hf("DeiT", "DeiT", "Model", PATCHES, _images()),
    _hf("DINOv2", "Dinov2", "Model", PATCHES, _images()),
    _hf("BEiT", "Beit", "Model", {**PATCHES, "use_relative_position_bias": True}, _images()),
    _hf("Swin", "Swin", "Model", WINDOWS, _images()),
    _hf("Swin v2", "Swinv2", "Model", WINDOWS, _images()),
    _hf("SAM, images", "SamVision", "Model", SAM, _images(64)),
    _hf("VideoMAE", "VideoMAE", "Model", {**PATCHES, "num_frames": 4}, _video),
    _hf("CLIP", "CLIP", "Model", {"text_config": TEXT, "vision_config": PATCHES, "projection_dim": 16}, _both),
    _hf("SigLIP, images", "SiglipVision", "Model", PATCHES, _images()),
    _hf("Perceiver", "Perceiver", "Model", PERCEIVER, lambda B: {"inputs": _vectors(B)}),
]
MODELS += [
    _hf("BigBird", "BigBird", "Model", {**WORDS, "block_size": 4, "num_random_blocks": 1}, _long),
    _hf(
        "ConvBERT",
        "ConvBert",
        "Model",
        {**WORDS, "embedding_size": 32, "conv_kernel_size": 3},
        rules={"encoder.layer.*.attention.self": None},
    ),
    _hf("FNet", "FNet", "Model", WORDS),
    _hf(
        "Funnel",
        "Funnel",
        "Model",
        {"vocab_size": 100, "block_sizes": [2, 2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    ),
    _hf("ModernBERT", "ModernBert", "Model", {**WORDS, **ENDS, "local_attention": 4}),
    _hf("MPT", "Mpt", "ForCausalLM", {"vocab_size": 100, "d_model": 32, "n_layers": 2, "n_heads": 4}),
    _hf("Falcon, ALiBi", "Falcon", "ForCausalLM", {**WORDS, "alibi": True}),
    _hf("Phi", "Phi", "ForCausalLM", WORDS),
    _hf("Phi 3", "Phi3", "ForCausalLM", {**GROUPED, **ENDS}),
    _hf("Cohere", "Cohere", "ForCausalLM", {**GROUPED, **ENDS}),
    _hf("Gemma 3", "Gemma3", "ForCausalLM", ALTERNATING, config="Gemma3TextConfig"),  # type: ignore[arg-type]
    _hf(
        "Gemma 3n",
        "Gemma3n",
        "ForCausalLM",
        {**ALTERNATING, "intermediate_size": [64, 64], "vocab_size_per_layer_input": 100}
        | {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "laurel_rank": 4, "altup_num_inputs": 2}
        | {"activation_sparsity_pattern": [0.0, 0.0]},
        config="Gemma3nTextConfig",  # type: ignore[arg-type]
        rules={"model.layers.[0-9]": None},
    ),
    _hf("OLMoE", "Olmoe", "ForCausalLM", {**GROUPED, **ENDS, "num_experts": 4, "num_experts_per_tok": 2}),
    _hf("Qwen 3, mixture", "Qwen3Moe", "ForCausalLM", HYBRID),
    _hf(
        "DeepSeek-V3",
        "DeepseekV3",
        "ForCausalLM",
        {**WORDS, **LATENT, **EXPERTS, "num_key_value_heads": 4} | {"n_group": 1, "topk_group": 1},
    ),
    _hf("Falcon Mamba", "FalconMamba", "ForCausalLM", MAMBA, rules={"backbone.layers.*.mixer": None}),
    _hf(
        "Mamba 2",
        "Mamba2",
        "ForCausalLM",
        {**MAMBA, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4},
        rules={"backbone.layers.*.mixer": None},
    ),
    _hf(
        "Jamba",
        "Jamba",
        "ForCausalLM",
        {**HYBRID, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
        rules={"model.layers.*.mamba": None},
    ),
    _hf(
        "Qwen 3 Next",
        "Qwen3Next",
        "ForCausalLM",
        {**HYBRID, "layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 16}
        | {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        rules={"model.layers.*.linear_attn": None},
    ),
    _hf(
        "RecurrentGemma",
        "RecurrentGemma",
        "ForCausalLM",
        {**GROUPED, "lru_width": 32, "attention_window_size": 4} | {"block_types": ["recurrent", "attention"]},
    ),
    _hf(
        "LongT5, transient global",
        "LongT5",
        "ForConditionalGeneration",
        {**T5, "local_radius": 3, "global_block_size": 2, "encoder_attention_type": "transient-global"},
        _pairs,
    ),
    _hf(
        "T5Gemma",
        "T5Gemma",
        "ForConditionalGeneration",
        {"encoder": ALTERNATING, "decoder": ALTERNATING} | {"vocab_size": 100},
        _pairs,
    ),
    _hf("LED", "LED", "ForConditionalGeneration", {**SEQUENCES, "attention_window": 4}, _pairs),
    _hf(
        "Moonshine",
        "Moonshine",
        "ForConditionalGeneration",
        {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, **ENDS, "decoder_start_token_id": 1}
        | {
            f"{part}_num_{what}": n
            for part in ("encoder", "decoder")
            for what, n in (("hidden_layers", 2), ("attention_heads", 4), ("key_value_heads", 4))
        },
        _heard,
    ),
    _hf("HuBERT", "Hubert", "Model", WAVES, _waves),
    _hf(
        "DETR",
        "Detr",
        "Model",
        {**SEQUENCES, "backbone_config": RESNET, "use_pretrained_backbone": False, "use_timm_backbone": False}
        | {"backbone": None, "num_queries": 5, "encoder_layers": 1, "decoder_layers": 1},
        _images(64),
    ),
    _hf(
        "Pixtral, images", "PixtralVision", "Model", PATCHES, _images(), rules={"transformer.layers.*.attention": None}
    ),
    _hf(
        "BLIP",
        "Blip",
        "ForConditionalGeneration",
        {"text_config": {**WORDS, "encoder_hidden_size": 32}} | {"vision_config": PATCHES, "projection_dim": 16},
        _both,
    ),
]
FAMILIES = {f"{family.source}: {family.name}": family for family in TORCH + MODELS + TIMM}
