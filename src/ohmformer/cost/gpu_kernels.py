"""The kernels that a GPU launches for the operations of one stage, with what each computes and moves.

With `fusion = "full"`, kernels are those of TensorRT (demo/BERT), TensorRT-LLM and FlashAttention (Dao et al., NeurIPS
2022). Products with the same inputs are one kernel. Attention is one kernel, whose scores stay on the chip and which
skips the scores that a causal mask hides. Activations and additions join the product of their stage. A normalization is
a kernel of its own. With `elementwise`, Q K^T, softmax and P V are three kernels, and scores go through the memory.
With `none`, every operation is a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ohmformer.cost.attention.seen_keys import KeysPerQuery
from ohmformer.hardware.spec import GpuEngine
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul

TILE = 64
"""Rows and columns of the smallest tile of results that a thread block computes at full rate."""

QUERIES = 384
"""Largest number of queries of one head that a thread block of fused attention takes, as in TensorRT's kernels."""


@dataclass(frozen=True)
class Kernel:
    """What one kernel computes and moves.

    Attributes:
        macs: multiply-accumulate operations of all thread blocks.
        block_macs: multiply-accumulate operations of the thread block with the most of them.
        weights: weights that it reads, each once.
        values: activations that it reads and writes, each once.
        kv: keys or values that it reads.
        attention: True for fused attention.
        launched: False if it is a part of the kernel before it, so that it takes no launch of its own.
    """

    macs: float = 0.0
    block_macs: float = 0.0
    weights: float = 0.0
    values: float = 0.0
    kv: float = 0.0
    attention: bool = False
    launched: bool = True


def kernels(ops: Sequence[Op], gpu: GpuEngine, *, joined: bool = True) -> list[Kernel]:
    """The kernels of the operations of one stage.

    Args:
        ops: the operations.
        gpu: the GPU.
        joined: True if Q K^T and P V both run on the GPU, so that one kernel computes them.
    """
    if gpu.fusion == "none":
        return [_alone(op) for op in ops]
    attention = [op for op in ops if isinstance(op, DynamicMatMul)]
    products = _same_inputs_merged(op for op in ops if isinstance(op, StaticMatMul))
    softmax = [op for op in ops if isinstance(op, Softmax)]
    elementwise = [op for op in ops if isinstance(op, Elementwise)]
    if products and not attention:
        operands = sum(op.elements for op in elementwise if op.kind == "add")
        products[0] = replace(products[0], values=products[0].values + operands)
    separate: list[Op] = [op for op in ops if isinstance(op, (Norm, Lookup))]
    separate += [] if attention or products else elementwise
    separate += [] if attention and gpu.fusion == "full" else softmax
    if gpu.fusion == "full":
        return [*(_fused_attention(op, joined=joined) for op in attention), *products, *map(_alone, separate)]
    return [*map(_alone, attention), *products, *map(_alone, separate)]


def _same_inputs_merged(ops: Iterable[StaticMatMul]) -> list[Kernel]:
    """Products with weights as kernels; those with the same number and width of inputs read them once, together."""
    groups: dict[tuple[int, int], list[StaticMatMul]] = {}
    for op in ops:
        groups.setdefault((op.vectors, op.inputs), []).append(op)
    return [_product(vectors, inputs, sum(op.outputs for op in group)) for (vectors, inputs), group in groups.items()]


def _product(vectors: int, inputs: int, outputs: int) -> Kernel:
    """A product of `vectors` vectors with weights."""
    return Kernel(
        macs=vectors * inputs * outputs,
        block_macs=_block(vectors, outputs, inputs),
        weights=inputs * outputs,
        values=vectors * (inputs + outputs),
    )


def _block(rows: int, columns: int, inputs: int) -> int:
    """Multiply-accumulate operations of a thread block, which computes a tile of results from all inputs."""
    return min(rows, TILE) * min(columns, TILE) * inputs


def _fused_attention(op: DynamicMatMul, *, joined: bool) -> Kernel:
    """Half of a kernel of fused attention: Q K^T, which reads Q and K, or P V, which reads V and writes results."""
    rows = min(op.queries, QUERIES)
    return Kernel(
        macs=op.batch * op.heads * visible_scores(op) * op.head_width,
        block_macs=visible_scores(replace(op, queries=rows)) * op.head_width,
        values=op.batch * op.heads * op.queries * op.head_width,
        kv=op.batch * op.kv_heads * op.tokens * op.head_width,
        attention=True,
        launched=op.role == "attention.key" or not joined,
    )


def visible_scores(op: DynamicMatMul) -> int:
    """Scores of one head that a mask does not hide: a causal query sees itself and the tokens before it."""
    return KeysPerQuery.of(op).blocks()


def _alone(op: Op) -> Kernel:
    """One operation as a kernel that reads its operands from the memory and writes its results there."""
    match op:
        case StaticMatMul():
            return _product(op.vectors, op.inputs, op.outputs)
        case DynamicMatMul():
            return Kernel(
                macs=op.macs,
                block_macs=_block(op.queries, op.outputs, op.inputs),
                values=op.batch * op.heads * op.queries * (op.inputs + op.outputs),
                kv=op.batch * op.kv_heads * op.inputs * op.outputs,
            )
        case Softmax():
            return Kernel(values=2 * op.rows * op.length)
        case Norm() | Lookup():
            return Kernel(values=2 * op.vectors * op.width)
        case Elementwise():
            return Kernel(values=(3 if op.kind == "add" else 2) * op.elements)
    return Kernel()
