"""What ran where in a pass of the cost half, when, and how fast."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ohmformer.cost.placement import Placement
from ohmformer.cost.power.full_load import full_load
from ohmformer.dataflow.simulate import Run
from ohmformer.dataflow.timeline import Timeline
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import ArrayEngine, Engine, GpuEngine
from ohmformer.study.results.record import Ran, Roofline, RooflinePoint, TimelineRecord, Work
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Exchange, Lookup, Norm, Op, Softmax, StaticMatMul

MOST_WORK = 240
"""Number of bars of a timeline that are kept."""

WHAT: dict[type[Op], str] = {
    StaticMatMul: "product with weights",
    Softmax: "softmax",
    Norm: "normalization",
    Lookup: "table look-up",
    Elementwise: "activation or sum",
    Exchange: "transfer between chips",
}
"""Type of an operation -> what it computes; those of keys and values are told apart by their role."""

PRODUCTS = {"attention.key": "product with keys", "attention.value": "product with values"}


def workload_words(placement: Placement) -> str:
    """Model and size of a pass, such as 'BERT-base: encode, 512 tokens, 1 sample'."""
    work = placement.workload
    sizes = [work.phase, f"{work.tokens:,} token{'' if work.tokens == 1 else 's'} a sample"]
    sizes += [f"{work.context:,} in the cache"] if work.context else []
    return f"{work.title}: {', '.join([*sizes, f'{work.batch:,} sample' + ('' if work.batch == 1 else 's')])}"


def ran_where(placement: Placement) -> tuple[Ran, ...]:
    """Each kind of operation with the engine that it runs on, in the order of the model."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for op in placement.workload.ops:
        name = re.sub(r"\d+", "*", op.name)
        what = PRODUCTS[op.role] if isinstance(op, DynamicMatMul) else WHAT.get(type(op), "other")
        found.setdefault((name, what, _engine_of(placement, op)), []).append(op.macs)
    return tuple(
        Ran(name=name, what=what, engine=engine, count=len(macs), macs=sum(macs))
        for (name, what, engine), macs in found.items()
    )


def _engine_of(placement: Placement, op: Op) -> str:
    """Role and kind of the engine of a product; empty for other operations."""
    if placement.choice is None or not isinstance(op, StaticMatMul | DynamicMatMul):
        return ""
    placed = placement.choice.resolve(op)
    return f"{placed.role}: {placed.engine.kind}"


def beginning(timeline: Timeline) -> TimelineRecord:
    """The first bars of a timeline."""
    units = {unit: number for number, unit in enumerate(timeline.busy)}
    names = list(units)
    events = sorted(timeline.events(units, 0.0, timeline.pauses), key=lambda event: (event["ts"], event["tid"]))
    bars = [event for event in events if event["dur"] > 0]
    kept = bars[:MOST_WORK]
    work = tuple(
        Work(
            unit=names[event["tid"]],
            stage=event["name"],
            layer=event["args"]["layer"],
            block=event["args"]["block"],
            start_s=event["ts"] / 1e6,
            seconds=event["dur"] / 1e6,
        )
        for event in kept
    )
    shown = max((bar.start_s + bar.seconds for bar in work), default=0.0)
    return TimelineRecord(latency_s=timeline.latency, shown_s=shown, jobs=len(bars), work=work)


def roofline(run: Run) -> Roofline | None:
    """How fast the products of a pass run, beside the peak; None if the accelerator has no peak rate."""
    placement = run.placement
    try:
        peak, bandwidth = _limits(placement)
    except BadInput:
        return None
    seconds = _seconds(run.timeline)
    points: dict[str, list[float]] = {}
    for op in placement.workload.ops:
        if isinstance(op, StaticMatMul | DynamicMatMul) and seconds.get(op.stage):
            sums = points.setdefault(op.stage, [0.0, 0.0])
            sums[0] += 2 * op.macs
            sums[1] += _moved(placement, op)
    return Roofline(
        peak_op_s=peak,
        bandwidth_B_s=bandwidth,
        points=tuple(
            RooflinePoint(stage=stage, operations=operations, moved_B=moved, seconds=seconds[stage])
            for stage, (operations, moved) in points.items()
            if moved
        ),
    )


def _limits(placement: Placement) -> tuple[float, dict[str, float]]:
    """Peak rate [op/s], and the bandwidths that the hardware states [B/s].

    Raises:
        BadInput: it has no arrays for weights.
    """
    hardware = placement.hardware
    for engine in hardware.gpus.values():
        return engine.peak, {"memory of the GPU": engine.bandwidth}
    peak = full_load(hardware, placement.tiles).rate
    chip = hardware.chip
    found = {}
    if chip is not None and chip.buffer_bandwidth is not None:
        found["memories of the tiles"] = chip.buffer_bandwidth * placement.tiles
    if chip is not None and chip.dram is not None and placement.homes.off_chip:
        found["memory off the chip"] = chip.dram.bandwidth
    return peak, found


def _moved(placement: Placement, op: StaticMatMul | DynamicMatMul) -> float:
    """Bytes of the operands and results of a product that do not stay in arrays, each counted once."""
    engine: Engine | None = placement.choice.resolve(op).engine if placement.choice else None
    size = engine.bytes_per_value if isinstance(engine, GpuEngine) else placement.hardware.value_bytes
    stays = isinstance(engine, ArrayEngine)
    if isinstance(op, StaticMatMul):
        held = 0 if stays else op.inputs * op.outputs
        return size * (op.vectors * (op.inputs + op.outputs) + held)
    held = op.batch * op.kv_heads * op.head_width * (op.written if stays else op.tokens)
    return size * (op.batch * op.heads * op.queries * (op.inputs + op.outputs) + held)


def _seconds(timeline: Timeline) -> dict[str, float]:
    """Stage -> time in which at least one unit works on it [s]."""
    spans: dict[str, list[tuple[float, float]]] = {}
    units = {unit: number for number, unit in enumerate(timeline.busy)}
    for event in timeline.events(units, 0.0, timeline.pauses):
        begin = event["ts"] / 1e6
        spans.setdefault(event["name"], []).append((begin, begin + event["dur"] / 1e6))
    return {stage: sum(_lengths(sorted(found))) for stage, found in spans.items()}


def _lengths(spans: list[tuple[float, float]]) -> Iterator[float]:
    """What each span adds to the union of those before it."""
    end = float("-inf")
    for start, stop in spans:
        yield max(0.0, stop - max(start, end))
        end = max(end, stop)
