"""The stages of one layer: every operation priced on its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, inf

from ohmformer.array.event_counter import Counts
from ohmformer.cost import components, kv_conditioning
from ohmformer.cost.attention.beside_products import Beside, beside_products, sees, timed_by_keys
from ohmformer.cost.attention.seen_keys import KeySum, SeenKeys
from ohmformer.cost.attention.write_stages import write_stages
from ohmformer.cost.cost import Cost, add_energy, all_beside
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import LayerOp, PlacedOp, role_of
from ohmformer.cost.gpu_kernels import kernels
from ohmformer.cost.gpu_roofline import kernels_cost
from ohmformer.cost.memory.traffic import stored_bytes, tile_memory_time, with_memory_off_chip
from ohmformer.cost.operands import (
    LayerContext,
    array_reads,
    computed_macs,
    first_attention,
    kv_tokens_read,
    lane_macs,
    time_of_reads,
)
from ohmformer.cost.power.standing import powered
from ohmformer.cost.stage import CONDITIONING, Stage, merged
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import ArrayEngine, ExactEngine, GpuEngine, SimdEngine, Work
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul


def layer_stages(ops: Sequence[LayerOp], context: LayerContext) -> list[Stage]:
    """The stages of a layer in order, with the writes of K and V; consecutive stages on the same unit are merged."""
    stages: dict[str, list[LayerOp]] = {}
    for op in ops:
        stages.setdefault(op.stage, []).append(op)
    priced: list[Stage] = []
    for index, (name, stage_ops) in enumerate(stages.items()):
        if any(isinstance(op, PlacedOp) and role_of(op.op) == "attention.key" for op in stage_ops):
            later = (op for ops in list(stages.values())[index:] for op in ops)
            priced += _written_stages(_Request("", [*first_attention(later)], context))
        priced.append(_stage(_Request(name, stage_ops, context)))
    return merged(priced)


class _Request:
    """A stage to be priced, as the key of a cache: two are equal if the same operations run on the same hardware.

    Operations, engines and the chip are compared by identity, which needs no deep hash. So a stage is priced once for
    all accelerators of an exploration that share its engine and the chip. A request refers to all objects that it
    compares, so that no other object takes their `id` while it is in a cache.
    """

    __slots__ = ("context", "key", "name", "ops")

    def __init__(self, name: str, ops: list[LayerOp], context: LayerContext, *, prices: bool = True) -> None:
        """`prices` is False if the prices of arrays do not count, but only their rows."""
        self.name, self.ops, self.context = name, ops, context
        self.key = (name, context.key, *(_identity(op, prices=prices) for op in ops))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Request) and self.key == other.key


def _identity(op: LayerOp, *, prices: bool) -> object:
    """What decides the price of an operation, by identity; without `prices`, that of moving and adding its values."""
    if not isinstance(op, PlacedOp):
        return id(op)
    engine: object = id(op.engine)
    if isinstance(op.engine, ArrayEngine) and not prices:
        engine = (type(op.engine), op.engine.array.rows, op.engine.written, op.engine.resident, op.engine.overflow)
    flags = (op.shared, op.rotated, op.holds_cells)
    return (id(op.op), engine, op.role, op.pattern, op.max_code, id(op.kv), *flags)


@lru_cache(maxsize=512)
def _written_stages(request: _Request) -> tuple[Stage, ...]:
    """The stages that condition and write K and V before the operations of a request."""
    ops, context = request.ops, request.context
    stages = (*kv_conditioning.stages(ops, context), *write_stages(ops, context))
    return tuple(powered(stage, () if stage.name == CONDITIONING else ops, context) for stage in stages)


@lru_cache(maxsize=512)
def _stage(request: _Request) -> Stage:
    """The stage of a request with its prices and the standing power of its tiles; see `_priced_stage`."""
    return powered(_priced_stage(request), request.ops, request.context)


def _priced_stage(request: _Request) -> Stage:
    """Price the operations of one stage on the engine of its products.

    Raises:
        BadInput: its products lie on engines of different kinds, or a price is missing.
    """
    context = request.context
    if context.moving:
        stage = _on_chip(_Request(request.name, request.ops, context.without_memory))
    else:
        stage = _on_engine(request)
    return stage if stage.unit == "gpu" else with_memory_off_chip(stage, request.ops, context)


@lru_cache(maxsize=512)
def _on_chip(request: _Request) -> Stage:
    """As `_on_engine`; stages that differ only in what is off the chip share its results."""
    return _on_engine(request)


def _on_engine(request: _Request) -> Stage:
    """The stage of a request without the memory off the chip."""
    name, ops, context = request.name, request.ops, request.context
    products = [op for op in ops if isinstance(op, PlacedOp)]
    if not products:
        return _without_products(name, ops, context)
    first = products[0]
    engine, side = first.engine, role_of(first.op).partition(".")[0]
    kinds = {type(each.engine) if not isinstance(each.engine, ArrayEngine) else ArrayEngine for each in products}
    if len(kinds) > 1:
        raise BadInput(
            f"rules: put {first.op.name} and other products of its stage on engines of different kinds, which "
            "has no price; put them on one kind, or keep some digital"
        )
    match engine:
        case GpuEngine():
            return _on_gpu(name, side, ops, engine, context)
        case SimdEngine():
            return _on_lanes(name, side, ops, engine, context)
        case ArrayEngine():
            return _on_arrays(name, side, ops, context)
        case ExactEngine():
            return _on_exact_engine(name, side, ops, engine, context)
    raise AssertionError(engine)


def _on_exact_engine(name: str, side: str, ops: list[LayerOp], engine: ExactEngine, context: LayerContext) -> Stage:
    """Products on an engine that defines its own price; the other operations run in vector lanes at the same time."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    sizes = [_values_moved(placed) for placed in products]
    values_in, values_out = (sum(values) for values in zip(*sizes, strict=True))
    weights = sum(op.op.inputs * op.op.outputs for op in products if isinstance(op.op, StaticMatMul))
    weights, macs = weights * context.weight_uses, sum(computed_macs(placed.op) for placed in products)
    price = engine.checked_price(Work(macs, values_in, values_out, context.vectors, weights))
    where = f"hardware.{products[0].role}.kind = {engine.kind!r}"
    if price is None:
        raise BadInput(
            f"{where}: has no price, since its logic is not described; take kind = 'simd' or 'gpu' with its figures"
        )
    numbers = (price.seconds, *price.energy.values())
    if not all(0 <= number < inf for number in numbers):
        raise BadInput(f"{where}: its price is {price}; give seconds and joules of 0 or more")
    transfers = all_beside(_transfer(placed, context) for placed in products)
    rest = beside_products(ops, context)
    energy = add_energy(dict(price.energy), transfers.energy, rest.cost.energy)
    in_memory = tile_memory_time(products, context, context.homes.tiles)
    fixed = context.chip.network_latency
    stage = Stage(name, side, engine.kind, True, fixed=fixed, per_token=rest.cost.interval, energy=energy)
    stage = timed_by_keys(stage, rest.seen, rest.parts)
    return stage.at_least(largest(price.seconds / context.vectors, in_memory))


def _on_gpu(name: str, side: str, ops: list[LayerOp], gpu: GpuEngine, context: LayerContext) -> Stage:
    """The kernels of the stage, one after another."""
    plain = [op.op if isinstance(op, PlacedOp) else op for op in ops]
    cost = kernels_cost(kernels(plain, gpu, joined=context.gpu_attention), gpu)
    return Stage(name, side, "gpu", shared=True, per_token=cost.latency / context.vectors, energy=cost.energy)


def _on_lanes(name: str, side: str, ops: list[LayerOp], engine: SimdEngine, context: LayerContext) -> Stage:
    """Products in vector lanes, followed by the other operations of the stage in the same lanes."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    count = context.lanes if engine.lanes == "of_layer" else engine.lanes
    if not count:
        raise BadInput(
            f"hardware.{products[0].role}.lanes = 'of_layer': no weights of {name} lie on arrays, so "
            "the layer has no cores; give a number of lanes"
        )
    chip, macs = context.chip, sum(computed_macs(placed.op) for placed in products)
    product = components.lanes_cost(chip, macs * engine.ops_per_mac, count, context.vectors, name="simd")
    transfers = all_beside(_transfer(placed, context) for placed in products)
    rest = beside_products(ops, replace(context, lanes=count))
    energy = add_energy(product.energy, transfers.energy, rest.cost.energy)
    tiles = ceil(count / (chip.cores_per_tile * chip.vector.lanes_per_core))
    shared = engine.lanes != "of_layer"  # a given number of lanes exists once, for all layers
    time = product.interval + rest.cost.interval
    stage = Stage(name, side, "lanes", shared, fixed=chip.network_latency, per_token=time, energy=energy)
    if rest.seen is not None:
        first = _macs_by_keys(products, rest.seen, context).times(engine.ops_per_mac / (count * chip.clock))
        stage = timed_by_keys(stage, rest.seen, tuple(first + part for part in rest.parts))
    return stage.at_least(tile_memory_time(products, context, tiles))


def _macs_by_keys(products: list[PlacedOp], seen: SeenKeys, context: LayerContext) -> KeySum:
    """Multiply-accumulate operations for one token, by the keys that it sees."""
    total = KeySum()
    for placed in products:
        op = placed.op
        if isinstance(op, DynamicMatMul) and sees(op, seen):
            total += KeySum(0.0, ((op.heads * op.head_width, 1, inf),))
        else:
            total += KeySum(computed_macs(op) / context.vectors)
    return total


def _without_products(name: str, ops: list[LayerOp], context: LayerContext) -> Stage:
    """A stage without products: on the GPU if it holds the weights, else in vector lanes."""
    if isinstance(context.hardware.projection, GpuEngine):
        return _on_gpu(name, "projection", ops, context.hardware.projection, context)
    cost = beside_products(ops, replace(context, lanes=context.working_lanes)).cost
    return Stage(name, "projection", f"projection.{name}", per_token=cost.interval, energy=cost.energy)


def _on_arrays(name: str, side: str, ops: list[LayerOp], context: LayerContext) -> Stage:
    """Products on arrays at the same time; the other operations of the stage run in vector lanes beside them."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    chip, counts, total = context.chip, Counts(), Cost()
    transfers, rest, spilled = _around_arrays(_Request(name, ops, context, prices=False))
    parts = [*rest.parts]
    for placed, transfer in zip(products, transfers, strict=True):
        reads = array_reads(placed)
        cost = components.mvm_cost(reads.matrices, reads.vectors, placed.role, partial=reads.partial)
        time, by_keys = time_of_reads(placed, reads, cost.interval)
        per_token = time / context.vectors
        if rest.seen is not None:
            parts += by_keys if by_keys and sees(placed.op, rest.seen) else (KeySum(per_token),)
        fill = cost.latency - cost.interval + chip.network_latency
        total = total.beside(Cost(add_energy(cost.energy, transfer.energy), fill, per_token))
        counts += reads.counts
    stage = Stage(
        name,
        side,
        f"{side}.{name}",
        any(placed.shared for placed in products),
        fixed=total.latency,
        per_token=largest(total.interval, rest.cost.interval, spilled),
        energy=add_energy(total.energy, rest.cost.energy),
        counts=counts,
    )
    return stage if rest.seen is None else timed_by_keys(stage, rest.seen, (*parts, KeySum(spilled)))


@lru_cache(maxsize=512)
def _around_arrays(request: _Request) -> tuple[tuple[Cost, ...], Beside, float]:
    """What stands beside the arrays of a stage.

    Returns:
        What each product moves; the other operations of the stage; time per vector in which memories of tiles read the
        tokens that have no cells [s].
    """
    ops, context = request.ops, request.context
    products = [op for op in ops if isinstance(op, PlacedOp)]
    transfers = tuple(_transfer(placed, context) for placed in products)
    tiles = context.working_lanes // (context.chip.cores_per_tile * context.chip.vector.lanes_per_core)
    spilled = tile_memory_time((op for op in products if lane_macs(op)), context, tiles)
    return transfers, beside_products(ops, context), spilled


def _transfer(placed: PlacedOp, context: LayerContext) -> Cost:
    """Cost of moving inputs from and results to memories, for all samples."""
    size = context.bytes_per_value
    values_in, values_out = _values_moved(placed)
    if isinstance(placed.engine, ArrayEngine):
        return components.transfer_cost(context.chip, values_in * size, values_out * size)
    stored = stored_bytes(placed, context)
    kv = 0 if isinstance(placed.op, StaticMatMul) else _kv_read(placed.op, placed)
    return components.transfer_cost(context.chip, (values_in - kv) * size + stored, values_out * size)


def _values_moved(placed: PlacedOp) -> tuple[float, float]:
    """Activations, keys and values read from memories, and results written to them, for all samples."""
    op = placed.op
    if isinstance(op, StaticMatMul):
        return op.vectors * op.inputs, op.vectors * op.outputs
    rows = op.batch * op.heads * op.queries
    scores = op.batch * op.heads * SeenKeys.of(op).blocks()
    activations, results = (rows * op.inputs, scores) if op.role == "attention.key" else (scores, rows * op.outputs)
    return activations + _kv_read(op, placed) + kv_conditioning.scales_read(placed), results


def _kv_read(op: DynamicMatMul, placed: PlacedOp) -> int:
    """Number of values of K or V that a product reads from memories, for all samples."""
    return op.batch * op.kv_heads * kv_tokens_read(op, placed) * op.head_width
