"""Which kernels a GPU launches, and what each computes and moves, counted by hand."""

from __future__ import annotations

import pytest

from ohmformer.cost.gpu_kernels import Kernel, kernels, visible_scores
from ohmformer.hardware.spec import Accelerator, GpuEngine
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul, Workload

A100 = load(Accelerator, "a100_sxm_40gb").projection
assert isinstance(A100, GpuEngine)
ELEMENTWISE, NONE = replace(A100, "fusion", "elementwise"), replace(A100, "fusion", "none")
M, D, F, HEADS = 2 * 100, 768, 3072, 12
"""BERT-base with two samples of 100 tokens."""


def by_stage(work: Workload, gpu: GpuEngine, index: int = 1) -> dict[str, list[Kernel]]:
    return {name: kernels(ops, gpu) for name, ops in work.layers()[index].stages().items()}


def launches(work: Workload, gpu: GpuEngine, index: int = 1) -> int:
    return sum(kernel.launched for found in by_stage(work, gpu, index).values() for kernel in found)


def test_a_fused_layer_of_bert_is_seven_kernels() -> None:
    """QKV, attention, output, normalization, two products of the feed-forward network, normalization."""
    found = by_stage(shapes("bert-base", tokens=100, batch=2), A100)
    assert found["qkv"] == [Kernel(M * D * 3 * D, 64 * 64 * D, D * 3 * D, M * D + M * 3 * D)]
    half = {"macs": M * D * 100, "block_macs": 100 * 100 * 64, "values": M * D, "kv": M * D, "attention": True}
    assert found["key"] == [Kernel(**half)]
    assert found["value"] == [Kernel(**half, launched=False)]
    norm = Kernel(values=2 * M * D)
    assert found["output"] == [Kernel(M * D * D, 64 * 64 * D, D * D, 3 * M * D)]  # the third is the residual
    assert found["ffn1"] == [Kernel(M * D * F, 64 * 64 * D, D * F, M * D + M * F), norm]
    assert found["ffn2"] == [Kernel(M * D * F, 64 * 64 * F, D * F, M * F + 2 * M * D), norm]
    assert launches(shapes("bert-base", tokens=100, batch=2), A100) == 7


def test_a_stack_without_fused_attention_moves_scores() -> None:
    work = shapes("bert-base", tokens=100, batch=2)
    found = by_stage(work, ELEMENTWISE)
    scores = 2 * HEADS * 100 * 100
    assert found["key"] == [
        Kernel(M * D * 100, 64 * 64 * 64, values=M * D + scores, kv=M * D),
        Kernel(values=2 * scores),
    ]
    assert found["value"] == [Kernel(M * D * 100, 64 * 64 * 100, values=M * D + scores, kv=M * D)]
    assert {name: found[name] for name in ("qkv", "ffn1", "ffn2")} == {
        name: by_stage(work, A100)[name] for name in ("qkv", "ffn1", "ffn2")
    }
    assert launches(work, ELEMENTWISE) == 9


def test_without_fusion_every_operation_is_a_kernel() -> None:
    work = shapes("bert-base", tokens=100, batch=2)
    for layer in work.layers():
        found = [kernel for ops in layer.stages().values() for kernel in kernels(ops, NONE)]
        assert len(found) == len(layer.ops)
        assert all(kernel.launched and not kernel.attention for kernel in found)


def test_a_layer_of_llama_merges_what_reads_the_same_tokens() -> None:
    """Two normalizations, QKV, attention, output, gate and up, down."""
    work = shapes("llama-3-8b", phase="decode", context=63, batch=4)
    found = by_stage(work, A100)
    assert launches(work, A100) == 7
    assert [kernel.weights for kernel in found["qkv"]] == [4096 * (4096 + 2 * 1024), 0]
    assert [kernel.weights for kernel in found["ffn1"]] == [4096 * 2 * 14336, 0]
    (key,) = found["key"]
    assert (key.macs, key.values, key.kv) == (4 * 64 * 4096, 4 * 4096, 4 * 64 * 1024)


def test_products_with_other_inputs_stay_apart() -> None:
    """In cross attention K and V come from the source, Q from the new token."""
    work = shapes("t5-base", tokens=100, phase="prefill")
    crosses = [layer for layer in work.layers() if "cross_qkv" in layer.stages()]
    products = [kernel for kernel in kernels(crosses[0].stages()["cross_qkv"], A100) if kernel.macs]
    assert sorted(kernel.weights for kernel in products) == [768 * 768, 768 * 2 * 768]


@pytest.mark.parametrize(
    ("queries", "tokens", "causal", "scores"),
    [(5, 5, True, 15), (5, 5, False, 25), (1, 9, True, 9), (3, 10, True, 8 + 9 + 10), (4, 2, True, 8)],
)
def test_a_causal_query_sees_the_tokens_before_it(queries: int, tokens: int, causal: bool, scores: int) -> None:
    op = DynamicMatMul("a", "key", 0, "attention.key", 1, 1, 1, queries, 64, tokens, queries, causal)
    assert visible_scores(op) == scores
    if causal and queries <= tokens:
        assert scores == sum(tokens - queries + 1 + each for each in range(queries))


def test_a_long_prompt_is_cut_into_blocks_of_queries() -> None:
    """The block with the last 384 queries has the most work: they see 386 to 769 keys."""
    (key,) = kernels(shapes("gpt2", tokens=769).layers()[1].stages()["key"], A100)
    assert key.block_macs == 64 * sum(range(386, 770))
    assert key.block_macs > key.macs / (12 * 3)


@pytest.mark.parametrize(
    ("op", "values"),
    [
        (Norm("n", "s", 0, 10, 8), 160),
        (Lookup("l", "s", 0, 10, 8, 99), 160),
        (Softmax("x", "s", 0, 6, 7, 2), 84),
        (Elementwise("a", "s", 0, 50), 100),
        (Elementwise("a", "s", 0, 50, "add"), 150),
    ],
)
@pytest.mark.parametrize("gpu", [A100, ELEMENTWISE, NONE])
def test_what_has_no_product_to_join_is_a_kernel(op: Op, values: int, gpu: GpuEngine) -> None:
    assert kernels([op], gpu) == [Kernel(values=values)]


def test_elementwise_work_moves_only_its_second_operand() -> None:
    product = StaticMatMul("p", "s", 0, 10, 8, 16)
    add, activation = Elementwise("r", "s", 0, 160, "add"), Elementwise("a", "s", 0, 160)
    (alone,), (joined,) = kernels([product], A100), kernels([product, activation, add], A100)
    assert joined.values == alone.values + 160
    assert [kernel.values for kernel in kernels([product, activation, add], NONE)] == [alone.values, 320, 480]


def test_p_v_alone_takes_a_launch() -> None:
    """Q K^T may run on another engine."""
    value = shapes("bert-base", tokens=100).layers()[1].stages()["value"]
    assert [kernel.launched for kernel in kernels(value, A100)] == [False]
    assert [kernel.launched for kernel in kernels(value, A100, joined=False)] == [True]
