"""Time and energy of what chips send one another, and of work that several chips do at the same time.

On a ring of T chips that share V bytes (Patarasuk and Yuan, Journal of Parallel and Distributed Computing 69(2), 2009):

    exchange     bytes that each chip sends    steps
    send         V for each receiver           1
    all_reduce   2 (T - 1) / T V               2 (T - 1)
    gather       (T - 1) / T V                 T - 1

It takes bytes / bandwidth, for which the link is occupied, and steps x latency, for which it is not. On a GPU, an
exchange is a kernel, which is launched. Each of the T
chips sends all values that cross to the next group, to the chip with its own number there, or to several if that group
has more chips.
"""

from __future__ import annotations

from dataclasses import replace

from ohmformer.cost.operands import LayerContext
from ohmformer.cost.stage import Stage
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import GpuEngine
from ohmformer.workload.spec import Exchange

LINK = "link"
"""Name of the stage, engine, unit and component of energy of exchanges between chips."""


def bytes_sent(op: Exchange, bytes_per_value: float) -> float:
    """Bytes that each chip sends in an exchange, for all samples."""
    size = op.values * bytes_per_value
    rounds = {"send": op.copies, "all_reduce": 2 * (op.chips - 1) / op.chips, "gather": (op.chips - 1) / op.chips}
    return size * rounds[op.kind]


def exchange_stage(op: Exchange, context: LayerContext) -> Stage:
    """The stage of an exchange, as one chip does it."""
    system = context.hardware.system
    assert system is not None
    size = bytes_sent(op, context.bytes_per_value)
    steps = {"send": 1, "all_reduce": 2 * (op.chips - 1), "gather": op.chips - 1}[op.kind]
    unit = LINK if system.links == 1 else f"{LINK} {1 + op.number % system.links}"
    energy = {LINK: size * system.link.energy} if size else {}
    gpu = context.hardware.projection
    launch = gpu.launch_time if isinstance(gpu, GpuEngine) else 0.0
    per_token = (size / system.link.bandwidth + launch) / context.vectors
    stage = Stage(LINK, LINK, unit, True, fixed=steps * system.link.latency, per_token=per_token, energy=energy)
    return _with_sums(stage, op, context) if op.kind == "all_reduce" else stage


def _with_sums(stage: Stage, op: Exchange, context: LayerContext) -> Stage:
    """The stage with the additions of an all-reduce, of which each chip does its share; a GPU's take no extra time.

    Raises:
        BadInput: all layers of a chip share vector units.
    """
    if isinstance(context.hardware.projection, GpuEngine) or context.hardware.chip is None:
        return stage
    chip = context.chip
    if chip.vector.units is not None:
        raise BadInput(
            f"hardware.chip.vector.units = {chip.vector.units}: chips that share a layer add results in vector lanes, "
            "which has no price with units that layers share; leave it out, or take system.partition = 'pipeline'"
        )
    operations = (op.chips - 1) / op.chips * op.values * chip.vector.add
    time = operations / (context.working_lanes * chip.clock) / context.vectors
    energy = {**stage.energy, "vector": operations * chip.vector.energy_per_op}
    return replace(stage, per_token=max(stage.per_token, time), energy=energy)


def on_chips(stage: Stage, chips: int) -> Stage:
    """The stage if several chips do the same at the same time: their energy and events add."""
    if chips == 1:
        return stage
    energy = {name: chips * value for name, value in stage.energy.items()}
    return replace(stage, energy=energy, counts=stage.counts.times(chips), standing=chips * stage.standing)
