"""What the memory of a GPU must hold: weights, keys and values, and the activations of one product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ohmformer import units
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.spec import Accelerator, GpuEngine
from ohmformer.workload.spec import DynamicMatMul, Lookup, Phase, StaticMatMul, Workload

Layers = Iterable[tuple[Sequence[LayerOp], int]]
"""The operations of each distinct layer, with the number of equal layers."""


def stays_cached(phase: Phase, op: DynamicMatMul) -> bool:
    """True if keys and values of all samples and layers are kept.

    A decoder keeps them for later tokens, from the prefill on. An encoder does not need them after its run, so samples
    and layers use the same memory in turn.
    """
    return phase == "decode" or (phase == "prefill" and (op.causal or op.across))


@dataclass(frozen=True)
class MemoryUse:
    """Bytes in the memory of a GPU.

    Attributes:
        weights: weights of all layers and embedding tables. Weights that modules share count once.
        kv: keys and values. A decoder keeps those of all layers; an encoder needs those of one layer at a time.
        activations: inputs and results of the product with the most of them.
    """

    weights: float
    kv: float
    activations: float

    @property
    def total(self) -> float:
        """All bytes."""
        return self.weights + self.kv + self.activations


def memory_use(workload: Workload, hardware: Accelerator, layers: Layers) -> MemoryUse:
    """The bytes that the operations on a GPU need."""
    weights = kept = in_turn = activations = 0.0
    tables: dict[tuple[str, int, int], None] = {}
    for ops, count in layers:
        once = 0.0
        for op in ops:
            if isinstance(op, Lookup) and isinstance(hardware.projection, GpuEngine):
                tables[op.name, op.entries, op.width] = None
            if not isinstance(op, PlacedOp) or not isinstance(op.engine, GpuEngine):
                continue
            product, gpu = op.op, op.engine
            activations = max(activations, _activations(product, gpu))
            if isinstance(product, StaticMatMul):
                weights += count * product.inputs * product.outputs * gpu.weight_bytes if op.holds_cells else 0.0
            elif stays_cached(workload.phase, product):
                kept += count * _kv_bytes(product, gpu)
            else:
                once += _kv_bytes(product, gpu)
        in_turn = max(in_turn, once)
    if isinstance(hardware.projection, GpuEngine):
        weights += sum(entries * width for _, entries, width in tables) * hardware.projection.weight_bytes
    return MemoryUse(weights, kept + in_turn, activations)


def check_memory(workload: Workload, hardware: Accelerator, layers: Layers) -> None:
    """Refuse a workload that needs more memory than a GPU has.

    Raises:
        BadInput: the memory is too small; the message gives the bytes that the workload needs.
    """
    gpus = hardware.gpus
    if not gpus:
        return
    role = min(gpus, key=lambda name: gpus[name].memory)
    use, memory = memory_use(workload, hardware, layers), gpus[role].memory
    if use.total > memory:
        parts = (("weights", use.weights), ("keys and values", use.kv), ("activations", use.activations))
        listed = ", ".join(f"{name} {units.show(size, 'B')}" for name, size in parts)
        raise BadInput(
            f"hardware.{role}.memory = {units.show(memory, 'B')}: {shown(workload.title)} with batch = "
            f"{workload.batch} needs {units.show(use.total, 'B')} ({listed}); take a GPU with more memory, smaller "
            "values, a smaller batch or a shorter sequence"
        )


def _kv_bytes(op: DynamicMatMul, gpu: GpuEngine) -> float:
    """Bytes of K or V of all samples."""
    return op.batch * op.kv_heads * op.tokens * op.head_width * gpu.bytes_per_value


def _activations(op: StaticMatMul | DynamicMatMul, gpu: GpuEngine) -> float:
    """Bytes of inputs and results of a product; fused attention has no scores in the memory."""
    if isinstance(op, StaticMatMul):
        return op.vectors * (op.inputs + op.outputs) * gpu.bytes_per_value
    width = op.head_width if gpu.fusion == "full" else op.inputs + op.outputs
    return op.batch * op.heads * op.queries * width * gpu.bytes_per_value
