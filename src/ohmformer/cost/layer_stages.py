"""The stages of one layer: every operation priced on its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, inf

from ohmformer.array.event_counter import Counts
from ohmformer.cost import array_costs, kv_conditioning
from ohmformer.cost.attention.beside_products import Beside, beside_products, sees, stage_keys, timed_by_keys
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, PerQueryCost
from ohmformer.cost.attention.write_stages import write_stages
from ohmformer.cost.chips.exchange import exchange_stage, on_chips
from ohmformer.cost.cost import Cost, sum_by_name
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import LayerOp, PlacedOp, role_of
from ohmformer.cost.gpu_kernels import kernels
from ohmformer.cost.gpu_roofline import kernels_cost
from ohmformer.cost.memory.limited_arrays import array_turns, limit_of
from ohmformer.cost.memory.traffic import tile_memory_time, with_memory_off_chip
from ohmformer.cost.network.links import carried
from ohmformer.cost.network.traffic import Traffic, traffic_of, values_moved
from ohmformer.cost.operands import (
    LayerContext,
    array_reads,
    computed_macs,
    first_attention,
    lane_macs,
    time_of_reads,
)
from ohmformer.cost.power.standing import on_powered_chips
from ohmformer.cost.scaled_array_prices import number
from ohmformer.cost.stage import Stage, merged
from ohmformer.cost.vector import lane_costs
from ohmformer.cost.vector.lanes import Lanes, lanes_of_engine, vector_units
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import ArrayEngine, ExactEngine, GpuEngine, SimdEngine, SramEngine, Work
from ohmformer.workload.spec import DynamicMatMul, Exchange, StaticMatMul

VECTOR = "vector"
"""Ending of the name of a stage that does the digital work behind the products of another one."""


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
        request = _Request(name, stage_ops, context)
        priced.append(_stage(request))
        if vector_units(context) is not None:
            priced += _in_vector_units(request)
    return merged(priced)


class _Request:
    """A stage to be priced, as the key of a cache: two are equal if the same operations run on the same hardware.

    Operations, engines and the chip are compared by identity, which needs no deep hash. So a stage is priced once for
    all accelerators of an exploration that share its engine and the chip. A request refers to all objects that it
    compares, so that no other object takes their `id` while it is in a cache.
    """

    __slots__ = ("context", "key", "name", "ops", "work")

    def __init__(self, name: str, ops: list[LayerOp], context: LayerContext, *, prices: bool = True) -> None:
        """`prices` is False if the prices of arrays do not count, but only their sizes."""
        self.name, self.ops, self.context = name, ops, context
        self.work = tuple(_identity(op, prices=prices) for op in ops)
        self.key: tuple[object, ...] = (name, context.key, self.work)

    def moves(self) -> _Request:
        """The request for what its products move, which is the same for all chips with the same cores and tiles."""
        copy = object.__new__(_Request)
        copy.name, copy.ops, copy.context, copy.work = "", self.ops, self.context, self.work
        copy.key = ("", self.context.sizes, self.work)
        return copy

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Request) and self.key == other.key


def _identity(op: LayerOp, *, prices: bool) -> object:
    """What decides the price of an operation, by identity; without `prices`, that of moving and adding its values."""
    if not isinstance(op, PlacedOp):
        return id(op)
    engine: object = id(op.engine)
    if not prices and isinstance(op.engine, ArrayEngine):
        engine = _without_prices(op.engine)
    flags = (op.shared, op.rotated, op.scaled, op.holds_cells)
    return (id(op.op), engine, op.role, op.pattern, op.max_code, id(op.conditioning), *flags)


def _without_prices(engine: ArrayEngine) -> tuple[object, ...]:
    """What an engine says of where matrices lie, how wide their sums are, and what is written."""
    array, most = engine.array, engine.arrays if isinstance(engine, SramEngine) else None
    cells = array.encoding, array.bits, array.bits_per_cell, array.radix, array.redundancy, array.drift_compensation
    place = array.rows, array.columns, array.inputs.bits, most
    return (type(engine), engine.written, engine.resident, engine.overflow, *cells, *place)


@lru_cache(maxsize=512)
def _written_stages(request: _Request) -> tuple[Stage, ...]:
    """The stages that condition and write K and V of the attention of a request."""
    products, context = first_attention(request.ops), request.context
    return (*kv_conditioning.stages(products, context), *write_stages(products, context))


@lru_cache(maxsize=512)
def _stage(request: _Request) -> Stage:
    """The stage of a request with its prices and the standing power of its tiles; see `_priced_stage`."""
    ops, context = request.ops, request.context
    if len(ops) == 1 and isinstance(ops[0], Exchange):
        return on_chips(exchange_stage(ops[0], context), context.sharing)
    return on_powered_chips(_priced_stage(request), ops, context)


@lru_cache(maxsize=512)
def _in_vector_units(request: _Request) -> tuple[Stage, ...]:
    """The stage of the digital work behind products, in the vector units that all layers share; empty without such."""
    ops, context, lanes = request.ops, request.context, vector_units(request.context)
    products = [op.engine for op in ops if isinstance(op, PlacedOp)]
    if lanes is None or not products or isinstance(products[0], (GpuEngine, SimdEngine)):
        return ()
    work = beside_products(ops, context, "lanes")
    if not work.cost.energy:
        return ()
    side = role_of(next(op.op for op in ops if isinstance(op, PlacedOp))).partition(".")[0]
    chip, cost = context.chip, work.cost
    results = sum(values_moved(op)[1] for op in ops if isinstance(op, PlacedOp)) * context.bytes_per_value
    back = {"network": results * number(chip.network_energy)} if number(chip.network_energy) else {}
    energy, fixed = sum_by_name(cost.energy, back), chip.network_latency
    stage = lanes.stage(f"{request.name}_{VECTOR}", side, fixed=fixed, per_token=cost.interval, energy=energy)
    stage = timed_by_keys(stage, work.seen, work.parts)
    return (on_powered_chips(stage, (), context),)


def _beside(ops: list[LayerOp], context: LayerContext) -> Beside:
    """The digital work at the same time as products: none of vector lanes if all layers share these."""
    return beside_products(ops, context, "all" if vector_units(context) is None else "outside")


def _priced_stage(request: _Request) -> Stage:
    """Price the operations of one stage on the engine of its products.

    Raises:
        BadInput: its products lie on engines of different kinds, or a price is missing.
    """
    context = request.context
    if context.moving:
        stage, traffic = _on_chip(_Request(request.name, request.ops, context.without_memory))
    else:
        stage, traffic = _on_engine(request)
    if stage.unit == "gpu":
        return stage
    stage = with_memory_off_chip(stage, request.ops, context)
    return stage if traffic is None else carried(stage, traffic, context.chip)


@lru_cache(maxsize=512)
def _on_chip(request: _Request) -> tuple[Stage, Traffic | None]:
    """As `_on_engine`; stages that differ only in what is off the chip share its results."""
    return _on_engine(request)


def _on_engine(request: _Request) -> tuple[Stage, Traffic | None]:
    """The stage of a request without the memory off the chip; and what its products move, None without links."""
    name, ops, context = request.name, request.ops, request.context
    products = [op for op in ops if isinstance(op, PlacedOp)]
    if not products:
        return _without_products(name, ops, context), None
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
            return _on_gpu(name, side, ops, engine, context), None
        case SimdEngine():
            return _on_lanes(name, side, ops, engine, context)
        case ArrayEngine():
            return _on_arrays(name, side, ops, context)
        case ExactEngine():
            return _on_exact_engine(name, side, ops, engine, context)
    raise AssertionError(engine)


def _on_exact_engine(
    name: str, side: str, ops: list[LayerOp], engine: ExactEngine, context: LayerContext
) -> tuple[Stage, Traffic | None]:
    """Products on an engine that defines its own price; the other operations run in vector lanes at the same time."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    sizes = [values_moved(placed) for placed in products]
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
    traffic, rest = _traffic(_Request(name, ops, context).moves()), _beside(ops, context)
    energy = sum_by_name(dict(price.energy), traffic.energy(context.chip), rest.cost.energy)
    in_memory = tile_memory_time(products, context, context.homes.tiles)
    fixed = context.chip.network_latency
    stage = Stage(name, side, engine.kind, True, fixed=fixed, per_token=rest.cost.interval, energy=energy)
    stage = timed_by_keys(stage, rest.seen, rest.parts)
    return stage.at_least(largest(price.seconds / context.vectors, in_memory)), traffic


def _on_gpu(name: str, side: str, ops: list[LayerOp], gpu: GpuEngine, context: LayerContext) -> Stage:
    """The kernels of the stage, one after another."""
    plain = [op.op if isinstance(op, PlacedOp) else op for op in ops]
    cost = kernels_cost(kernels(plain, gpu, joined=context.gpu_attention), gpu)
    return Stage(name, side, "gpu", shared=True, per_token=cost.latency / context.vectors, energy=cost.energy)


def _on_lanes(
    name: str, side: str, ops: list[LayerOp], engine: SimdEngine, context: LayerContext
) -> tuple[Stage, Traffic | None]:
    """Products in vector lanes, followed by the other operations of the stage in the same lanes."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    lanes = lanes_of_engine(engine, context)
    count = lanes.number
    if not count:
        raise BadInput(
            f"hardware.{products[0].role}.lanes = 'of_layer': no weights of {name} lie on arrays, so "
            "the layer has no cores; give a number of lanes"
        )
    chip, macs = context.chip, sum(computed_macs(placed.op) for placed in products)
    product = lane_costs.lanes_cost(chip, macs * engine.ops_per_mac, count, context.vectors, name="simd")
    traffic = _traffic(_Request(name, ops, context).moves())
    rest = beside_products(ops, replace(context, lanes=count))
    energy = sum_by_name(product.energy, traffic.energy(chip), rest.cost.energy)
    tiles = ceil(count / (chip.cores_per_tile * chip.vector.lanes_per_core))
    time = product.interval + rest.cost.interval
    stage = lanes.stage(name, side, fixed=chip.network_latency, per_token=time, energy=energy)
    if rest.seen is not None:
        first = _macs_by_keys(products, rest.seen, context).times(engine.ops_per_mac / (count * chip.clock))
        stage = timed_by_keys(stage, rest.seen, tuple(first + part for part in rest.parts))
    return stage.at_least(tile_memory_time(products, context, tiles)), traffic


def _macs_by_keys(products: list[PlacedOp], seen: KeysPerQuery, context: LayerContext) -> PerQueryCost:
    """Multiply-accumulate operations for one token, by the keys that it sees."""
    total = PerQueryCost()
    for placed in products:
        op = placed.op
        if isinstance(op, DynamicMatMul) and sees(op, seen):
            total += PerQueryCost(0.0, (KeyTerm(op.heads * op.head_width, 1, inf),))
        else:
            total += PerQueryCost(computed_macs(op) / context.vectors)
    return total


def _without_products(name: str, ops: list[LayerOp], context: LayerContext) -> Stage:
    """A stage without products: on the GPU if it holds the weights, else in vector lanes."""
    if isinstance(context.hardware.projection, GpuEngine):
        return _on_gpu(name, "projection", ops, context.hardware.projection, context)
    cost = beside_products(ops, replace(context, lanes=context.working_lanes)).cost
    lanes = vector_units(context) or Lanes(context.working_lanes, f"projection.{name}", False)
    return lanes.stage(name, "projection", per_token=cost.interval, energy=cost.energy)


def _on_arrays(name: str, side: str, ops: list[LayerOp], context: LayerContext) -> tuple[Stage, Traffic | None]:
    """Products on arrays at the same time; the other operations of the stage run in vector lanes beside them."""
    products = [op for op in ops if isinstance(op, PlacedOp)]
    chip, counts, total = context.chip, Counts(), Cost()
    traffic, transfers, rest, spilled = _around_arrays(_Request(name, ops, context, prices=False))
    parts, turns = [*rest.parts], array_turns(products)
    for placed in products:
        reads = array_reads(placed)
        cost = array_costs.mvm_cost(reads.matrices, reads.vectors, placed.role, partial=reads.partial)
        time, by_keys = time_of_reads(placed, reads, cost.interval)
        per_token = time / context.vectors
        if turns > 1 and limit_of(placed) is not None:
            per_token *= turns
        if rest.seen is not None:
            parts += by_keys if by_keys and sees(placed.op, rest.seen) else (PerQueryCost(per_token),)
        fill = cost.latency - cost.interval + chip.network_latency
        total = total.beside(Cost(cost.energy, fill, per_token))
        counts += reads.counts
    in_turn = context.turns if any(limit_of(placed) is not None for placed in products) else ""
    stage = Stage(
        name,
        side,
        f"{side}.{'arrays' if in_turn == 'stages' else name}",
        bool(in_turn) or any(placed.shared for placed in products),
        fixed=total.latency,
        per_token=largest(total.interval, rest.cost.interval, spilled),
        energy=sum_by_name(total.energy, transfers, rest.cost.energy),
        counts=counts,
    )
    return stage if rest.seen is None else timed_by_keys(stage, rest.seen, (*parts, PerQueryCost(spilled))), traffic


@lru_cache(maxsize=512)
def _around_arrays(request: _Request) -> tuple[Traffic, dict[str, float], Beside, float]:
    """What stands beside the arrays of a stage.

    Returns:
        What the products move, and its energy [J]; the other operations of the stage; time per vector in which memories
        of tiles read the tokens that have no cells [s].
    """
    ops, context = request.ops, request.context
    products = [op for op in ops if isinstance(op, PlacedOp)]
    tiles = ceil(context.working_lanes / (context.chip.cores_per_tile * context.chip.vector.lanes_per_core))
    spilled = tile_memory_time((op for op in products if lane_macs(op)), context, tiles)
    traffic = _traffic(request.moves())
    return traffic, traffic.energy(context.chip), _beside(ops, context), spilled


@lru_cache(maxsize=512)
def _traffic(request: _Request) -> Traffic:
    """What the products of a stage move."""
    products = [op for op in request.ops if isinstance(op, PlacedOp)]
    return traffic_of(products, request.context, stage_keys(request.ops, request.context))
