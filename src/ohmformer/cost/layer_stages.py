"""The stages of one layer: every product priced on the engine that has its role."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from ohmformer.array.event_counter import Counts
from ohmformer.cost import components, kv_conditioning
from ohmformer.cost.cost import Cost, add_energy, all_beside
from ohmformer.cost.engine_choice import Where, role_of
from ohmformer.cost.gpu_roofline import kernel
from ohmformer.cost.operands import Pricing, partial_sums, rotations, tokens_written, used_arrays, write_stages
from ohmformer.cost.stage import Stage, merged
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import ArrayEngine, ExactEngine, GpuEngine, SimdEngine, Work
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Layer, Lookup, Norm, Op, Softmax, StaticMatMul


def layer_stages(layer: Layer, pricing: Pricing) -> list[Stage]:
    """The stages of a layer in order, writes of K and V included; neighbours on the same unit are one stage."""
    found: list[Stage] = []
    stages = layer.stages()
    for index, (name, ops) in enumerate(stages.items()):
        keys = [op for op in ops if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
        if keys:
            later = [op for ops in list(stages.values())[index:] for op in ops]
            found += [*kv_conditioning.stages(later, pricing), *write_stages(later, pricing)]
        found.append(_stage(name, ops, pricing))
    return merged(found)


def _stage(name: str, ops: list[Op], pricing: Pricing) -> Stage:
    products = [op for op in ops if isinstance(op, (StaticMatMul, DynamicMatMul))]
    if not products:
        return _lanes_only(name, ops, pricing)
    places = [pricing.where(op) for op in products]
    engine, side = places[0].engine, role_of(products[0]).partition(".")[0]
    kinds = {type(place.engine) if not isinstance(place.engine, ArrayEngine) else ArrayEngine for place in places}
    if len(kinds) > 1:
        raise BadInput(
            f"rules: put {products[0].name} and others that work at the same time on engines of several kinds, which "
            "has no price; put them on one kind, or keep some digital"
        )
    match engine:
        case GpuEngine():
            return _on_gpu(name, side, ops, engine, pricing)
        case SimdEngine():
            return _on_lanes(name, side, ops, products, engine, pricing)
        case ArrayEngine():
            return _on_arrays(name, side, ops, list(zip(products, places, strict=True)), pricing)
        case ExactEngine():
            return _on_own(name, side, ops, products, engine, pricing)
    raise AssertionError(engine)


def _on_own(
    name: str,
    side: str,
    ops: list[Op],
    products: list[StaticMatMul | DynamicMatMul],
    engine: ExactEngine,
    pricing: Pricing,
) -> Stage:
    """Products on an engine that says its own price; all else of the stage runs in vector lanes at the same time."""
    sizes = [_values_moved(op, pricing) for op in products]
    values_in, values_out = (sum(values) for values in zip(*sizes, strict=True))
    price = engine.price(Work(sum(op.macs for op in products), values_in, values_out, pricing.vectors))
    where = f"hardware.{pricing.where(products[0]).role}.kind = {engine.kind!r}"
    if price is None:
        raise BadInput(
            f"{where}: has no price, since nobody has described that logic; "
            "take kind = 'simd' or 'gpu' with its figures"
        )
    numbers = (price.seconds, *price.energy.values())
    if not all(0 <= number < inf for number in numbers):
        raise BadInput(f"{where}: its price is {price}; give seconds and joules of 0 or more")
    moved = all_beside(_moved(op, pricing) for op in products)
    rest = _digital(ops, pricing)
    energy = add_energy(dict(price.energy), moved.energy, rest.energy)
    time = max(price.seconds / pricing.vectors, rest.interval)
    return Stage(name, side, engine.kind, True, fixed=pricing.chip.network_latency, per_token=time, energy=energy)


def _on_gpu(name: str, side: str, ops: list[Op], gpu: GpuEngine, pricing: Pricing) -> Stage:
    costs = [kernel(op, gpu) for op in ops]
    time = sum(cost.latency for cost in costs)
    energy = add_energy(*(cost.energy for cost in costs))
    return Stage(name, side, "gpu", shared=True, per_token=time / pricing.vectors, energy=energy)


def _on_lanes(
    name: str,
    side: str,
    ops: list[Op],
    products: list[StaticMatMul | DynamicMatMul],
    engine: SimdEngine,
    pricing: Pricing,
) -> Stage:
    count = pricing.lanes if engine.lanes == "of_layer" else engine.lanes
    if not count:
        raise BadInput(
            f"hardware.{pricing.where(products[0]).role}.lanes = 'of_layer': no weights of {name} lie on arrays, so "
            "that there are no cores; give a number of lanes"
        )
    chip, macs = pricing.chip, sum(op.macs for op in products)
    product = components.lanes(chip, macs * engine.ops_per_mac, count, pricing.vectors, name="simd")
    moved = all_beside(_moved(op, pricing) for op in products)
    rest = _digital(ops, replace(pricing, lanes=count))
    energy = add_energy(product.energy, moved.energy, rest.energy)
    time = product.interval + rest.interval
    common = engine.lanes != "of_layer"  # a number of lanes is there once, for all layers
    return Stage(name, side, "lanes", common, fixed=chip.network_latency, per_token=time, energy=energy)


def _lanes_only(name: str, ops: list[Op], pricing: Pricing) -> Stage:
    """A stage without products: on the GPU where that has the weights, in vector lanes otherwise."""
    if isinstance(pricing.hardware.projection, GpuEngine):
        return _on_gpu(name, "projection", ops, pricing.hardware.projection, pricing)
    chip = pricing.chip
    known = replace(pricing, lanes=pricing.lanes or chip.cores_per_tile * chip.vector.lanes_per_core)
    cost = _digital(ops, known)
    return Stage(name, "projection", f"projection.{name}", per_token=cost.interval, energy=cost.energy)


def _on_arrays(
    name: str,
    side: str,
    ops: list[Op],
    products: list[tuple[StaticMatMul | DynamicMatMul, Where]],
    pricing: Pricing,
) -> Stage:
    chip, counts, total = pricing.chip, Counts(), Cost()
    for op, place in products:
        use = used_arrays(op, place)
        cost = components.multiply(use.reads, use.vectors, place.role)
        per_token = cost.interval * use.vectors_in_turn / pricing.vectors
        fill = cost.latency - cost.interval + chip.network_latency
        total = total.beside(Cost(add_energy(cost.energy, _moved(op, pricing).energy), fill, per_token))
        counts += use.reads.reads(use.vectors)
    rest = _digital(ops, pricing)
    shared = any(place.shared for _, place in products)
    return Stage(
        name,
        side,
        f"{side}.{name}",
        shared,
        fixed=total.latency,
        per_token=max(total.interval, rest.interval),
        energy=add_energy(total.energy, rest.energy),
        counts=counts,
    )


def _moved(op: StaticMatMul | DynamicMatMul, pricing: Pricing) -> Cost:
    """Inputs from and results to the memories, for all samples."""
    values_in, values_out = _values_moved(op, pricing)
    return components.transfer(pricing.chip, values_in * pricing.bytes_per_value, values_out * pricing.bytes_per_value)


def _values_moved(op: StaticMatMul | DynamicMatMul, pricing: Pricing) -> tuple[float, float]:
    if isinstance(op, StaticMatMul):
        return op.vectors * op.inputs, op.vectors * op.outputs
    rows = op.batch * op.heads * op.queries
    stored = op.batch * op.kv_heads * _tokens_moved(op, pricing) * op.head_width
    return rows * op.inputs + stored + kv_conditioning.scales_read(op, pricing), rows * op.outputs


def _tokens_moved(op: DynamicMatMul, pricing: Pricing) -> int:
    """Tokens of a sample whose K or V come from memory: what is written, or all where cells do not hold them."""
    place = pricing.where(op)
    if isinstance(place.engine, ArrayEngine) and place.engine.written == "right":
        return tokens_written(op, place.engine, shared=place.shared)
    return op.tokens


def _digital(ops: list[Op], pricing: Pricing) -> Cost:
    """Softmax, normalisation, activations and additions of a stage: they run while products do."""
    chip, total, worked = pricing.chip, Cost(), Cost()
    operations = conditioned = 0.0
    for op in ops:
        match op:
            case Softmax() if chip.softmax is not None:
                share = op.rows / (op.heads * pricing.vectors)
                found = components.softmax(chip, chip.softmax, op.rows, op.length)
                total = total.beside(Cost(found.energy, 0.0, found.interval * share))
            case Softmax():
                operations += op.rows * op.length * chip.vector.softmax
            case Norm():
                operations += op.vectors * op.width * chip.vector.norm
            case Elementwise(kind="add"):
                operations += op.elements * chip.vector.add
            case Elementwise():
                operations += op.elements * chip.vector.activation
            case StaticMatMul() | DynamicMatMul():
                operations += (partial_sums(op, pricing) + rotations(op, pricing)) * chip.vector.add
                conditioned += kv_conditioning.of_product(op, pricing) * chip.vector.add
            case Lookup():
                moved = components.transfer(chip, 0.0, op.vectors * op.width)
                total = total.beside(Cost(moved.energy))
    for name, done in (("vector", operations), (kv_conditioning.NAME, conditioned)):
        if done:
            worked = worked.in_turn(components.lanes(chip, done, pricing.lanes_at_work, pricing.vectors, name=name))
    return total.beside(worked)
