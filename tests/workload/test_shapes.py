"""Tables of dimensions become the products that such models are known to have."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import DynamicMatMul, Softmax, StaticMatMul, Workload


def weights(work: Workload) -> int:
    return sum(op.inputs * op.outputs for op in work.ops if isinstance(op, StaticMatMul))


def test_bert_base_has_its_known_number_of_operations() -> None:
    work = shapes("bert-base", tokens=512)
    assert weights(work) == 12 * 7_077_888
    assert work.operations / 1e9 == pytest.approx(96.64, abs=0.005)
    assert work.dynamic_macs / 1e9 == pytest.approx(4.83, abs=0.005)
    assert shapes("bert-base", tokens=384).operations / 1e9 == pytest.approx(70.67, abs=0.005)
    assert shapes("bert-large", tokens=512).operations / 1e9 == pytest.approx(335.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("gpt2", 84.9 + 38.6),
        ("llama-2-7b", 6476 + 131.1),
        ("llama-3-8b", 6979 + 525.3),
        ("vit-base", 86.3),
        ("deit-small", 22.0),
        ("t5-base", 84.9),
    ],
)
def test_parameters_of_other_models(name: str, millions: float) -> None:
    phase = "encode" if name == "t5-base" else None
    assert weights(shapes(name, phase=phase)) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", catalog.entries("shapes"))
def test_every_table_makes_a_workload(name: str) -> None:
    table = load(Transformer, name)
    work = shapes(table, batch=2)
    layers = [layer for layer in work.layers() if layer.index is not None]
    count = table.layers + (0 if table.kind != "encoder_decoder" else table.decoder_layers or table.layers)
    assert len(layers) == count
    assert {layer.anonymous() for layer in layers[: table.layers]} == {layers[0].anonymous()}
    assert work.macs == 2 * shapes(table).macs


def test_grouped_queries_share_keys_and_values() -> None:
    ops = [op for op in shapes("llama-3-8b").ops if isinstance(op, DynamicMatMul)]
    assert {(op.heads, op.kv_heads, op.group) for op in ops} == {(32, 8, 4)}
    key = next(op for op in shapes("llama-3-8b").ops if op.name.endswith("attention.key"))
    assert isinstance(key, StaticMatMul)
    assert key.outputs == 8 * 128


def test_one_matrix_for_queries_keys_and_values_has_the_same_weights() -> None:
    table = load(Transformer, "gpt2")
    apart = shapes(replace(table, "fused", False))
    assert weights(shapes(table)) == weights(apart)
    assert shapes(table).macs == apart.macs
    assert len(shapes(table).ops) == len(apart.ops) - 2 * table.layers


def test_a_step_of_decoding_writes_one_token_and_reads_the_cache() -> None:
    work = shapes("gpt2", phase="decode", context=99, batch=3)
    assert (work.tokens, work.context, work.causal) == (1, 99, True)
    key, value = [op for op in work.ops if isinstance(op, DynamicMatMul)][:2]
    assert (key.queries, key.inputs, key.outputs, key.written, key.tokens) == (1, 64, 100, 1, 100)
    assert (value.inputs, value.outputs, value.written, value.tokens) == (100, 64, 1, 100)
    assert next(op for op in work.ops if isinstance(op, Softmax)).rows == 3 * 12


def test_an_encoder_and_a_decoder_meet_in_cross_attention() -> None:
    prefill, decode = shapes("t5-base", tokens=100), shapes("t5-base", tokens=100, phase="decode", context=7)
    across = [op for op in prefill.ops if isinstance(op, DynamicMatMul) and op.across]
    assert {(op.queries, op.tokens, op.written) for op in across} == {(1, 100, 100)}
    across = [op for op in decode.ops if isinstance(op, DynamicMatMul) and op.across]
    assert {(op.queries, op.tokens, op.written) for op in across} == {(1, 100, 0)}
    assert len(shapes("t5-base", tokens=100, phase="encode").layers()) == 14, "the last norm stands behind them"


def test_the_bundled_model_has_the_shapes_of_its_table() -> None:
    from ohmformer.models.load import load_model

    model = load_model("bundled:fashion-vit")
    found = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() in (2, 4))
    assert weights(shapes("fashion-vit")) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase": "decode"}, "an encoder sees all tokens at once; take encode"),
        ({"tokens": 1000}, "1000 tokens: its positions end at 512"),
        ({"batch": 0}, "batch = 0: must be 1 or more"),
        ({"context": 3}, "context = 3: encoding has no cache"),
        ({"phase": "train"}, "phase = 'train': is not a phase"),
    ],
)
def test_what_a_model_does_not_have_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        shapes("bert-base", **changes)  # type: ignore[arg-type]


def test_a_table_of_ones_own(tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "mine.toml"  # type: ignore[operator]
    text = '[shapes]\ntitle = "mine"\nkind = "decoder"\nlayers = 2\nwidth = 64\nheads = 4\nhidden = 128\ntokens = 16\n'
    file.write_text(text)
    assert shapes(str(file)).title == "mine"
    file.write_text(text.replace("heads = 4", "heads = 5"))
    message = r"mine.toml: shapes: width = 64 is not a multiple of heads = 5; give head_width"
    with pytest.raises(BadInput, match=message):
        shapes(str(file))
    with pytest.raises(BadInput, match="did you mean 'bert-base'"):
        shapes("bert-bas")


@pytest.mark.parametrize("sizes", [{"tokens": 2.5}, {"batch": True}, {"phase": "decode", "context": 1.0}])
def test_sizes_are_whole_numbers(sizes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="must be a whole number"):
        shapes("gpt2", **sizes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert-base", {"decoder_layers": 3}, "decoder_layers = 3: this kind has one stack of layers; leave it out"),
        ("bert-base", {"patch": 768}, "patch and entries: tokens are either patches or token ids"),
        ("bert-base", {"extra_tokens": 1}, "extra_tokens = 1: are counted beside patches; give patch"),
        ("vit-base", {"extra_tokens": 197}, "extra_tokens = 197: leaves no patch of tokens = 197; correct one"),
    ],
)
def test_a_dimension_that_would_have_no_effect_is_refused(name: str, changes: dict[str, int], message: str) -> None:
    values = {**load(Transformer, name).canonical(), **changes}
    with pytest.raises(BadInput, match=message):
        Transformer(**values)


def test_images_have_at_least_one_patch() -> None:
    assert shapes("vit-base", tokens=2).tokens == 2
    with pytest.raises(BadInput, match="seq_len = 1: leaves no patch beside 1 extra tokens; raise it"):
        shapes("vit-base", tokens=1)
