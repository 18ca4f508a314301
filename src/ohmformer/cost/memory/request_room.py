"""Room for a whole request: the weights of all its passes beside the keys and values of its longest cache.

An encoder-decoder needs the weights of its encoder in the prefill alone, but they stay in memory while it decodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ohmformer import units
from ohmformer.cost.machine.machine import joined_kv, larger_weights
from ohmformer.cost.memory.gpu_memory import Layers, MemoryUse, memory_use
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.tiles import KVArrays, LayerArrays, allocate_tiles
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class ChipContents:
    """All that decides whether a pass has room on one chip.

    Attributes:
        workload: phase and batch of the pass.
        hardware: the accelerator.
        layers: the operations of each kind of layer on the chip, with the number of such layers.
        homes: what lives in which memory.
        weights: the matrices of each kind of layer.
        kv: the arrays of K and V.
    """

    workload: Workload
    hardware: Accelerator
    layers: Layers
    homes: Homes
    weights: list[LayerArrays]
    kv: list[KVArrays]


def check_both(prefill: ChipContents, last: ChipContents) -> None:
    """Refuse a request for which a chip has no room in its tiles or memories, though each pass alone fits.

    Raises:
        BadInput: the chip has fewer tiles than both passes need, or see `check_room`.
    """
    kv = joined_kv(prefill.kv, last.kv)
    used = allocate_tiles(last.hardware, larger_weights(prefill.weights, last.weights), kv)
    check_room(prefill, last, used.total)


def check_room(prefill: ChipContents, last: ChipContents, tiles: int) -> None:
    """Refuse a request whose weights and longest cache have no room at the same time.

    Args:
        prefill: what the chip holds in the prefill.
        last: what it holds in the last decoding step.
        tiles: number of tiles of the chip that runs both.

    Raises:
        BadInput: a memory is too small; the message gives the bytes that the request needs.
    """
    _check_gpu(prefill, last)
    memory, hardware = last.homes.memory or prefill.homes.memory, last.hardware
    if memory is None or memory.capacity is None or hardware.chip is None:
        return
    one, other = _sizes(prefill), _sizes(last)
    sizes = {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in (*one, *other)}
    total = sum(sizes.values()) - tiles * (hardware.chip.buffer_capacity or 0.0)
    if total > memory.capacity * (1 + 1e-12):
        where = "chip.dram.capacity" if hardware.chip.dram is not None else f"{next(iter(hardware.gpus))}.memory"
        raise _too_small(f"{where} = {units.show(memory.capacity, 'B')}", last, total, sizes)


def _check_gpu(prefill: ChipContents, last: ChipContents) -> None:
    gpus = last.hardware.gpus
    if not gpus:
        return
    role = min(gpus, key=lambda name: gpus[name].memory)
    one, other = _on_gpu(prefill), _on_gpu(last)
    sizes = {
        "weights": max(one.weights, other.weights),
        "keys and values": max(one.kv, other.kv),
        "activations": max(one.activations, other.activations),
    }
    total, memory = sum(sizes.values()), gpus[role].memory
    if total > memory:
        raise _too_small(f"{role}.memory = {units.show(memory, 'B')}", last, total, sizes)


def _on_gpu(held: ChipContents) -> MemoryUse:
    return memory_use(held.workload, held.hardware, held.layers)


def _sizes(held: ChipContents) -> dict[str, float]:
    """Kind of values -> bytes, wherever they live."""
    on_chip, off_chip = held.homes.on_chip, held.homes.off_chip
    return {name: on_chip.get(name, 0.0) + off_chip.get(name, 0.0) for name in (*on_chip, *off_chip)}


def _too_small(field: str, last: ChipContents, total: float, sizes: Mapping[str, float]) -> BadInput:
    listed = ", ".join(f"{name} {units.show(size, 'B')}" for name, size in sizes.items() if size)
    return BadInput(
        f"hardware.{field}: requests to {shown(last.workload.title)} with batch = {last.workload.batch} need "
        f"{units.show(total, 'B')} there ({listed} in all memories); take a larger memory, a smaller batch, or lower "
        "prompt or generate"
    )
