"""The share of a layer that each of several chips computes."""

from __future__ import annotations

import pytest

from ohmformer.cost.chips.tensor import layer_share
from ohmformer.errors import BadInput
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Exchange, Layer, Norm, Op, Softmax, StaticMatMul

LLAMA = shapes("llama-3-8b", phase="decode", context=100)
GPT2 = shapes("gpt2", tokens=10, batch=3)


def share(work: str, position: int, chips: int) -> dict[str, Op]:
    layer = {"llama": LLAMA, "gpt2": GPT2}[work].layers()[position]
    return {op.name.rpartition("layers.0.")[2]: op for op in layer_share(layer, chips, "a model")}


def sizes(op: Op) -> tuple[int, ...]:
    match op:
        case StaticMatMul():
            return op.inputs, op.outputs
        case DynamicMatMul():
            return op.heads, op.kv_heads
        case Softmax():
            return op.rows, op.heads
        case Elementwise():
            return (op.elements,)
        case Norm():
            return op.vectors, op.width
        case Exchange():
            return op.values, op.chips, op.number
    raise AssertionError(op)


def test_columns_heads_and_rows_of_a_layer_of_llama() -> None:
    found = {name: sizes(op) for name, op in share("llama", 1, 4).items()}
    assert found["attention.query"] == (4096, 1024)
    assert found["attention.key"] == found["attention.value"] == (4096, 256)
    assert found["attention.query.rotary"] == (1024,)
    assert found["attention.key.rotary"] == (256,)
    assert found["attention.scores"] == (8, 2)
    assert found["attention.output"] == (1024, 4096)
    assert found["attention.residual"] == (4096,)
    assert found["mlp.norm"] == found["attention.norm"] == (1, 4096)
    exchanges = [value for name, value in found.items() if name.endswith("all_reduce")]
    assert exchanges == [(4096, 4, 0), (4096, 4, 1)]


def test_all_products_of_all_chips_are_those_of_the_whole_layer() -> None:
    for work, chips in ((LLAMA, 8), (GPT2, 3), (shapes("bert-base", tokens=7), 12)):
        for layer in work.layers():
            if layer.index is None:
                continue
            parts = layer_share(layer, chips, work.title)
            assert chips * sum(op.macs for op in parts) == sum(op.macs for op in layer.ops)


def test_chips_that_share_a_head_of_keys_repeat_it() -> None:
    """Llama-3-8B has 8 heads of keys and values: each of 16 chips has two heads of queries and one of keys."""
    found = share("llama", 1, 16)
    assert sizes(found["attention.scores"]) == (2, 1)
    assert sizes(found["attention.key"]) == (4096, 128)
    assert sizes(found["attention.key.rotary"]) == (128,)
    assert sizes(found["attention.query"]) == (4096, 256)


def test_fused_queries_keys_and_values_repeat_keys_too() -> None:
    table = Transformer(
        title="x", kind="decoder", layers=1, width=64, heads=8, kv_heads=2, hidden=128, fused=True, tokens=4
    )
    (layer,) = (layer for layer in shapes(table).layers() if layer.index == 0)
    found = {op.name: op for op in layer_share(layer, 4, "x")}
    assert sizes(next(op for name, op in found.items() if name.endswith("attention.qkv"))) == (64, (2 + 2) * 8)


def test_columns_of_a_vocabulary_are_padded_and_gathered() -> None:
    parts = layer_share(GPT2.layers()[-1], 4, "GPT-2")
    (head,) = (op for op in parts if isinstance(op, StaticMatMul))
    (gather,) = (op for op in parts if isinstance(op, Exchange))
    assert head.outputs == 12_565
    assert (gather.kind, gather.values) == ("gather", 3 * 50_257)


def test_one_chip_does_everything() -> None:
    layer = LLAMA.layers()[1]
    assert layer_share(layer, 1, "x") == list(layer.ops)


@pytest.mark.parametrize(
    ("work", "chips", "words"),
    [
        (LLAMA, 3, "heads"),
        (LLAMA, 64, "heads"),
        (GPT2, 5, "12 heads, which 5 chips cannot divide evenly"),
        (GPT2, 8, "12 heads"),
    ],
)
def test_sizes_that_chips_cannot_divide_are_refused(work: object, chips: int, words: str) -> None:
    layer = work.layers()[1]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"hardware.system.degree") as error:
        layer_share(layer, chips, "x")
    assert "\n" not in str(error.value)
    assert words in str(error.value)
    assert "take another degree, or partition = 'pipeline'" in str(error.value)


def test_products_that_follow_from_no_columns_are_refused() -> None:
    """A router of experts makes 8 values, which the experts do not multiply."""
    ops = (StaticMatMul("router", "ffn1", 0, 1, 64, 8), StaticMatMul("expert", "ffn2", 0, 1, 64, 256))
    with pytest.raises(BadInput, match=r"expert multiplies 64 values, which are not those that the products before it"):
        layer_share(Layer("layer 0", 0, 1, ops), 4, "x")
