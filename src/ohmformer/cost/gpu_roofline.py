"""Time and energy of a GPU's kernels: a roofline (Williams et al., Communications of the ACM 52(4), 2009) with a third
roof, the power of the board, and with kernels that are too small to fill the chip.

A kernel of N operations, n of them in one thread block, and D bytes takes

    t = launch_time + max(N / (efficiency peak), n processors / (efficiency peak), D / (memory_efficiency bandwidth),
                          E / (power - idle power)),    E = N energy_per_op + D energy_per_byte

The second term is the time of one thread block on its processor: a kernel with fewer blocks than processors leaves the
others idle. The last one is the clock that the board's power allows. E is the dynamic energy; the idle power is
standing power of the chip. So mean power never exceeds the board's, and falls to the idle power with the utilization.
"""

from __future__ import annotations

from collections.abc import Iterable

from ohmformer.cost.cost import Cost
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.gpu_kernels import Kernel
from ohmformer.hardware.spec import Accelerator, GpuEngine


def kernels_cost(kernels: Iterable[Kernel], gpu: GpuEngine) -> Cost:
    """Time and dynamic energy of kernels one after another, for all samples."""
    op_energy, dynamic_power = gpu.op_energy, gpu.power - gpu.idle_power
    bandwidth = gpu.bandwidth * gpu.memory_efficiency
    time = energy = 0.0
    for kernel in kernels:
        moved, rate = bytes_moved(kernel, gpu), gpu.peak
        rate *= gpu.attention_efficiency if kernel.attention else gpu.efficiency
        joules = 2 * kernel.macs * op_energy + moved * gpu.energy_per_byte
        time += (gpu.launch_time if kernel.launched else 0.0) + largest(
            2 * kernel.macs / rate,
            2 * kernel.block_macs * gpu.processors / rate,
            moved / bandwidth,
            joules / dynamic_power if joules else 0.0,
        )
        energy += joules
    return Cost({"gpu": energy}, time, time)


def bytes_moved(kernel: Kernel, gpu: GpuEngine) -> float:
    """Bytes that a kernel reads from and writes to the memory."""
    return kernel.weights * gpu.weight_bytes + (kernel.values + kernel.kv) * gpu.bytes_per_value


def idle_power(hardware: Accelerator) -> float:
    """Idle power of the GPU of an accelerator [W]; 0 without a GPU. All roles of a GPU are one chip."""
    return largest(0.0, *(gpu.idle_power for gpu in hardware.gpus.values()))
