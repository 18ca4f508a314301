"""GPU cost model: a roofline (Williams et al., Communications of the ACM 52(4), 2009), one kernel per operation."""

from __future__ import annotations

from ohmformer.cost.cost import Cost
from ohmformer.hardware.spec import GpuEngine
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul


def kernel_cost(op: Op, gpu: GpuEngine) -> Cost:
    """Cost of one operation for all samples.

    Time is the longer of computing and moving operands, plus the launch. Energy is board power times time.
    """
    compute = 2 * op.macs / (gpu.peak * gpu.efficiency)
    memory = _values_moved(op) * gpu.bytes_per_value / gpu.bandwidth
    time = max(compute, memory) + gpu.launch_time
    return Cost({"gpu": time * gpu.power}, time, time)


def _values_moved(op: Op) -> int:
    """Number of values that an operation reads and writes, each once."""
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
