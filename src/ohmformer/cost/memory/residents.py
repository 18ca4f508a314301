"""Which values need a memory, and where they find room.

Keys and values come first, then weights: they fill the memories of tiles, and what finds no room there is off the chip.
Embedding tables and weights that are loaded for every use are always off the chip; without a memory there, tables are
in a read-only memory that is not described, and a look-up is a read of a tile's memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from ohmformer import units
from ohmformer.cost.attention.token_places import slots_of, tokens_for_cells
from ohmformer.cost.engine_choice import PlacedOp
from ohmformer.cost.memory.gpu_memory import Layers, memory_use, stays_cached
from ohmformer.cost.memory.homes import KV, LOADED, TABLES, WEIGHTS, Homes
from ohmformer.cost.operands import chip_of, operand_bytes
from ohmformer.cost.tiles import KVUse
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.memory import Memory
from ohmformer.hardware.spec import Accelerator, ArrayEngine, Engine, ExactEngine, GpuEngine, SimdEngine
from ohmformer.workload.spec import DynamicMatMul, Lookup, Phase, StaticMatMul, Workload


def is_digital(engine: Engine) -> bool:
    """True if the operands of an engine are in memories of the chip: neither in cells nor in those of a GPU."""
    return isinstance(engine, ExactEngine) and not isinstance(engine, GpuEngine)


def kv_in_memory(placed: PlacedOp | KVUse, op: DynamicMatMul, phase: Phase) -> int:
    """Tokens of K or V per sample that a memory keeps: all, if cells do not hold them for as long as they are needed.

    Otherwise only those that are digital.
    """
    return op.tokens if kept_whole(placed, op, phase) else min(op.tokens, placed.digital)


def kept_whole(placed: PlacedOp | KVUse, op: DynamicMatMul, phase: Phase) -> bool:
    """True if a memory keeps all tokens of K or V."""
    engine = placed.engine
    if not isinstance(engine, ArrayEngine):
        return is_digital(placed.engine)
    if engine.written == "left":
        return stays_cached(phase, op)
    kept = stays_cached(phase, op)
    if kept and placed.shared:
        return True
    slots = slots_of(op, engine, placed.digital)
    return (kept or engine.overflow == "spill") and tokens_for_cells(op, placed.digital) > slots


def bytes_needed(workload: Workload, hardware: Accelerator, layers: Layers) -> dict[str, float]:
    """Kind of values -> bytes that need a memory of the chip, or off the chip.

    What an encoder needs of one layer at a time counts only if the capacity of the memories of tiles is known, as for
    other activations.
    """
    kept = in_turn = weights = 0.0
    tables: dict[tuple[str, int, int], None] = {}
    on_gpu = isinstance(hardware.projection, GpuEngine)
    digital = any(is_digital(engine) for engine in hardware.engines.values())
    for ops, count in layers:
        once = 0.0
        for placed in ops:
            if not isinstance(placed, PlacedOp):
                if isinstance(placed, Lookup) and not on_gpu:
                    tables[placed.name, placed.entries, placed.width] = None
                continue
            op = placed.op
            if isinstance(op, StaticMatMul):
                if digital and placed.holds_cells and is_digital(placed.engine):
                    weights += count * op.inputs * op.outputs * operand_bytes(placed.engine, hardware)
            elif tokens := kv_in_memory(placed, op, workload.phase):
                size = op.batch * op.kv_heads * tokens * op.head_width * operand_bytes(placed.engine, hardware)
                if stays_cached(workload.phase, op):
                    kept += count * size
                else:
                    once += size / workload.batch
        in_turn = max(in_turn, once)
    entries = sum(rows * width for _, rows, width in tables)
    known = hardware.chip is not None and hardware.chip.buffer_capacity is not None
    return {KV: kept + in_turn if known else kept, WEIGHTS: weights, TABLES: entries * hardware.value_bytes}


NOTHING = Homes()
"""Nothing needs a memory."""


def find_homes(workload: Workload, hardware: Accelerator, layers: Layers, tiles: int, loaded: float) -> Homes:
    """Decide what lives where.

    Args:
        workload: phase and batch.
        hardware: the accelerator, with the memories of its chip.
        layers: the operations of each distinct layer, with the number of equal layers.
        tiles: number of tiles.
        loaded: bytes of weights that are loaded for every use.

    Raises:
        BadInput: no memory has room for what needs one, or a bandwidth is missing.
    """
    if not loaded and _all_in_cells(workload, hardware, layers):
        return NOTHING
    return homes_of(bytes_needed(workload, hardware, layers), workload, hardware, layers, tiles, loaded)


def homes_of(
    needed: Mapping[str, float], workload: Workload, hardware: Accelerator, layers: Layers, tiles: int, loaded: float
) -> Homes:
    """Decide where a number of bytes of each kind lives.

    Args:
        needed: kind of values -> bytes, see `bytes_needed`.
        workload: see `find_homes`.
        hardware: see `find_homes`.
        layers: see `find_homes`.
        tiles: see `find_homes`.
        loaded: see `find_homes`.

    Raises:
        BadInput: see `find_homes`.
    """
    sizes = {**needed, LOADED: loaded}
    if not (sizes[KV] or sizes[WEIGHTS] or loaded or sizes[TABLES]):
        return NOTHING
    if hardware.chip is not None and hardware.chip.dram is None and not (sizes[KV] or sizes[WEIGHTS] or hardware.gpus):
        return NOTHING
    chip, memory = chip_of(hardware), memory_off_chip(workload, hardware, layers)
    room = tiles * (chip.buffer_capacity or 0.0)
    kv = min(sizes[KV], room)
    on_chip = _not_empty({KV: kv, WEIGHTS: min(sizes[WEIGHTS], room - kv)})
    off_chip = _not_empty({name: sizes[name] - on_chip.get(name, 0.0) for name in (KV, WEIGHTS)})
    if memory is not None:
        off_chip |= _not_empty({TABLES: sizes[TABLES], LOADED: loaded})
    elif off_chip:
        if not tiles and any(
            isinstance(one, SimdEngine) and one.lanes == "of_layer" for one in hardware.engines.values()
        ):
            return NOTHING  # there are no lanes either, which is refused where they are priced
        _refuse_without(hardware, workload, sizes, tiles)
    _check_capacity(hardware, workload, memory, off_chip)
    if on_chip and chip.buffer_bandwidth is None:
        raise BadInput(
            f"hardware.chip.buffer_bandwidth: is missing, but memories of tiles hold {_listed(on_chip)}; add it"
        )
    own = any(is_digital(engine) and not isinstance(engine, SimdEngine) for engine in hardware.engines.values())
    return Homes(on_chip, off_chip, workload.phase, memory if off_chip else None, tiles if own else 0)


def _all_in_cells(workload: Workload, hardware: Accelerator, layers: Layers) -> bool:
    """True if nothing needs a memory, as it is known of an encoder in arrays alone without digital tokens."""
    if workload.phase != "encode" or hardware.chip is None or hardware.chip.dram is not None:
        return False
    engines = (hardware.projection, hardware.attention.key, hardware.attention.value)
    if not all(isinstance(engine, ArrayEngine) and engine.overflow != "spill" for engine in engines):
        return False
    return not any(placed.digital for ops, _ in layers for placed in ops if isinstance(placed, PlacedOp))


def _not_empty(sizes: dict[str, float]) -> dict[str, float]:
    return {name: size for name, size in sizes.items() if size > 0}


def memory_off_chip(workload: Workload, hardware: Accelerator, layers: Layers) -> Memory | None:
    """The memory off the chip; without one, what is left of the memory of a GPU beside the chip."""
    assert hardware.chip is not None
    gpus = hardware.gpus.values()
    if hardware.chip.dram is not None or not gpus:
        return hardware.chip.dram
    gpu = min(gpus, key=lambda each: each.memory)
    left = max(1.0, gpu.memory - memory_use(workload, hardware, layers).total)
    return Memory(capacity=left, bandwidth=gpu.bandwidth * gpu.memory_efficiency, energy=gpu.energy_per_byte)


def _check_capacity(
    hardware: Accelerator, workload: Workload, memory: Memory | None, off_chip: dict[str, float]
) -> None:
    """Refuse more bytes than the memory off the chip has.

    Raises:
        BadInput: there are more.
    """
    total = sum(off_chip.values())
    if memory is None or memory.capacity is None or total <= memory.capacity:
        return
    capacity = units.show(memory.capacity, "B")
    own = hardware.chip is not None and hardware.chip.dram is not None
    where = f"chip.dram.capacity = {capacity}" if own else f"{next(iter(hardware.gpus))}.memory: has {capacity} left"
    raise BadInput(
        f"hardware.{where}: {shown(workload.title)} with batch = {workload.batch} needs "
        f"{units.show(total, 'B')} there ({_listed(off_chip)}); take a larger memory, a smaller batch or a shorter "
        "sequence"
    )


def _refuse_without(hardware: Accelerator, workload: Workload, sizes: dict[str, float], tiles: int) -> None:
    """Refuse values for which neither memories of tiles nor a memory off the chip has room.

    Raises:
        BadInput: always.
    """
    chip = chip_of(hardware)
    held = {name: sizes[name] for name in (KV, WEIGHTS) if sizes[name]}
    each = "of unknown capacity" if chip.buffer_capacity is None else f"of {units.show(chip.buffer_capacity, 'B')}"
    there = f"{tiles} memories of tiles {each} have no room" if tiles else "there are no tiles with memories"
    raise BadInput(
        f"hardware.chip.dram: is missing, and {there} for what no cell of {shown(workload.title)} with batch = "
        f"{workload.batch} holds: {_listed(held)}; add chip.dram, or raise chip.buffer_capacity or chip.tiles"
    )


def _listed(sizes: dict[str, float]) -> str:
    """Example: "weights 85 MB, keys and values 1.5 MB"."""
    return ", ".join(f"{name} {units.show(size, 'B')}" for name, size in sizes.items())
