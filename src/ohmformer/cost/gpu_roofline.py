"""Work on a GPU: the slower of computing and moving operands, and the launch of one kernel for each operation."""

from __future__ import annotations

from ohmformer.cost.cost import Cost
from ohmformer.hardware.spec import GpuEngine
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul


def kernel(op: Op, gpu: GpuEngine) -> Cost:
    """One operation for all samples: its time as latency and interval, and the power of the board over that time."""
    compute = 2 * op.macs / (gpu.peak * gpu.efficiency)
    moved = _values(op) * gpu.bytes_per_value / gpu.bandwidth
    time = max(compute, moved) + gpu.launch_time
    return Cost({"gpu": time * gpu.power}, time, time)


def _values(op: Op) -> int:
    """Values read and written, each once."""
    match op:
        case StaticMatMul():
            return op.vectors * (op.inputs + op.outputs) + op.inputs * op.outputs
        case DynamicMatMul():
            per_matrix = op.inputs * op.outputs
            per_head = op.queries * (op.inputs + op.outputs)
            return op.batch * (op.kv_heads * per_matrix + op.heads * per_head)
        case Softmax():
            return 2 * op.rows * op.length
        case Norm() | Lookup():
            return 2 * op.vectors * op.width
        case Elementwise():
            return (3 if op.kind == "add" else 2) * op.elements
    return 0
