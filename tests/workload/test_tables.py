"""Tables of dimensions hold what `trace` finds in models of that kind, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import Workload
from tests.nn.hub import library, on_meta
from tests.tracing.test_trace_models import DECODERS, ENCODERS, IDS, IMAGES, TEXT, WORDS, make

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES: dict[str, Any] = {"layers": 2, "width": 64, "heads": 4, "hidden": 128}
WORDED: dict[str, Any] = {**SIZES, "entries": 100, "tokens": 16}
PATCHED: dict[str, Any] = {**SIZES, "kind": "encoder", "patch": 192, "head": 2}
ONE_WORD = {**WORDS, "logits_to_keep": 1}
TABLES: dict[str, dict[str, Any]] = {
    "bert": {"kind": "encoder", "norm": "after", "pooler": True, **WORDED},
    "gpt2": {**WORDED, "kind": "decoder", "fused": True, "activation": "gelu_tanh", "head": 100, "hidden": 256},
    "llama": {"kind": "decoder", "kv_heads": 2, "gated": True, "rotary": True, "head": 100, **WORDED},
    "t5": {"kind": "encoder_decoder", "head": 100, **WORDED},
    "vit": {"extra_tokens": 1, "tokens": 17, **PATCHED},
    "deit": {"extra_tokens": 2, "tokens": 18, **PATCHED},
}


def table(name: str) -> Transformer:
    return Transformer(title=name, **TABLES[name])


def same(made: Workload, traced: Workload) -> None:
    for work in (made, traced):
        assert all(op.name for op in work.ops if op.layer is not None)
    assert [(op.layer, op.anonymous()) for op in made.ops] == [(op.layer, op.anonymous()) for op in traced.ops]
    sizes = [(w.phase, w.batch, w.tokens, w.context, w.causal, w.kinds) for w in (made, traced)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("name", "sample"),
    [("bert", WORDS), ("gpt2", ONE_WORD), ("llama", ONE_WORD), ("vit", IMAGES), ("deit", IMAGES)],
)
def test_one_pass(name: str, sample: dict[str, Any]) -> None:
    same(shapes(table(name), batch=2), of.trace(make((ENCODERS | DECODERS)[name], meta=True), sample))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_step_of_decoding(name: str) -> None:
    traced = of.trace(make(DECODERS[name], meta=True), {"input_ids": IDS[:, :1]}, phase="decode", context=5)
    same(shapes(table(name), batch=2, phase="decode", context=5), traced)


@pytest.mark.parametrize(("phase", "context"), [("encode", 0), ("prefill", 0), ("decode", 5)])
def test_an_encoder_and_its_decoder(phase: Any, context: int) -> None:
    traced = of.trace(make(DECODERS["t5"], meta=True), WORDS, phase=phase, context=context or None)
    same(shapes(table("t5"), batch=2, phase=phase, context=context), traced)


def test_timm() -> None:
    timm = library("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    model = on_meta(timm.models.VisionTransformer, **sizes, num_classes=2)
    made = shapes(Transformer(title="timm", fused=True, **TABLES["vit"]), batch=2)
    same(made, of.trace(model, torch.randn(2, 3, 32, 32)))


def test_the_bundled_model() -> None:
    same(shapes("fashion-vit"), of.trace(of.load_model("bundled:fashion-vit"), torch.randn(1, 1, 28, 28)))


@pytest.mark.slow
def test_library_tables_are_of_these_kinds() -> None:
    """The models that library tables name, at their real size, without their pooler."""
    transformers = library("transformers")
    assert TEXT["vocab_size"] == 100
    model = on_meta(transformers.BertModel, transformers.BertConfig(), add_pooling_layer=False)
    same(shapes("bert-base", tokens=16, batch=2), of.trace(model, WORDS))
    model = on_meta(transformers.GPT2LMHeadModel, transformers.GPT2Config())
    same(shapes("gpt2", tokens=16, batch=2), of.trace(model, ONE_WORD))
