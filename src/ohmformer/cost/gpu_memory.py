"""What the memory of a GPU must hold: weights, keys and values, and the activations of one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ohmformer import units
from ohmformer.cost.engine_choice import LayerOp, PlacedOp
from ohmformer.cost.gpu_kernels import kernels
from ohmformer.cost.tiles import stay_cached
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.spec import Accelerator, GpuEngine
from ohmformer.workload.spec import DynamicMatMul, Lookup, StaticMatMul, Workload

Layers = Iterable[tuple[Sequence[LayerOp], int]]
"""The operations of each distinct layer, with the number of equal layers."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes in the memory of a GPU.

    Attributes:
        weights: weights of all layers and embedding tables. Weights that modules share count once.
        kv: keys and values. A decoder keeps those of all layers; an encoder needs those of one layer at a time.
        activations: inputs and results of the kernel with the most of them.
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
    for ops, count in layers:
        weights += count * _weight_bytes(hardware, ops)
        kv = [op for op in ops if isinstance(op, PlacedOp) and isinstance(op.op, DynamicMatMul)]
        kept += count * sum(_kv_bytes(op) for op in kv if _stays(workload, op))
        in_turn = max(in_turn, sum(_kv_bytes(op) for op in kv if not _stays(workload, op)))
        activations = max(activations, _activation_bytes(ops))
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


def _stays(workload: Workload, placed: PlacedOp) -> bool:
    return isinstance(placed.op, DynamicMatMul) and stay_cached(workload, placed.op)


def _weight_bytes(hardware: Accelerator, ops: Iterable[LayerOp]) -> float:
    """Bytes of the weights and embedding tables of a layer that lie in the memory of a GPU."""
    total = 0.0
    for op in ops:
        match op:
            case PlacedOp(op=StaticMatMul() as product, engine=GpuEngine() as gpu) if op.holds_cells:
                total += product.inputs * product.outputs * gpu.weight_bytes
            case Lookup() if isinstance(hardware.projection, GpuEngine):
                total += op.entries * op.width * hardware.projection.weight_bytes
    return total


def _kv_bytes(placed: PlacedOp) -> float:
    """Bytes of K or V of all samples that a product on a GPU reads; 0 on other engines."""
    op, gpu = placed.op, placed.engine
    if not isinstance(op, DynamicMatMul) or not isinstance(gpu, GpuEngine):
        return 0.0
    return op.batch * op.kv_heads * op.tokens * op.head_width * gpu.bytes_per_value


def _activation_bytes(ops: Iterable[LayerOp]) -> float:
    """Bytes of the activations of the products' largest kernel on a GPU."""
    stages: dict[str, list[PlacedOp]] = {}
    for op in ops:
        if isinstance(op, PlacedOp) and isinstance(op.engine, GpuEngine):
            stages.setdefault(op.stage, []).append(op)
    largest = 0.0
    for products in stages.values():
        gpu = products[0].engine
        assert isinstance(gpu, GpuEngine)
        found = kernels([placed.op for placed in products], gpu)
        largest = max(largest, *(kernel.values * gpu.bytes_per_value for kernel in found))
    return largest
