"""Conservation: lanes, links, memories and arrays of random machines do no more than they can in the latency."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ohmformer.cost import array_costs
from ohmformer.cost.operands import chip_of
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import plan
from ohmformer.schema import replace
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import StaticMatMul, Workload

NAMES = ("isaac_isca_2016", "nvm_ideal", "puma_asplos_2019_16bit", "sram_iso_area", "xformer_tvlsi_2023_bit_serial")
FIELDS: dict[str, tuple[Any, ...]] = {
    "chip.buffer_capacity": (1e3, 65_536.0, 1e7),
    "chip.buffer_bandwidth": (1e9, 16e9),
    "chip.network_max_load": (0.001, 0.025),
    "chip.network_packet": (32.0,),
    "chip.dram": ({"bandwidth": 1e9, "energy": 1e-11}, {"bandwidth": 1e11, "energy": 1e-10}),
    "chip.idle_tiles": ("gated", "on"),
    "attention.arrays": ("shared", "per_layer"),
    "attention.key.resident": (8, 64, None),
    "attention.value.overflow": ("rewrite", "spill"),
    "projection.array.adc.columns_per_adc": (1, 32),
    "projection.arrays": (1, 30, 500),
}
FLOWS: tuple[Dataflow, ...] = (LayerSerial(), SequenceBlocking(block=7), LayerOverlap(block=16))


def machine(source: random.Random) -> Accelerator:
    hardware = replace(load(source.choice(NAMES)), "chip.overload", "slow")
    for name in source.sample(list(FIELDS), 5):
        try:
            hardware = replace(hardware, name, source.choice(FIELDS[name]))
        except BadInput:  # its engine has no such field
            continue
    return hardware


def work(source: random.Random) -> Workload:
    sizes: dict[str, Any] = {"layers": source.choice((1, 3)), "width": 128, "heads": 2, "hidden": 300, "entries": 500}
    kind = source.choice(("encoder", "decoder"))
    model = Transformer(title="small", kind=kind, tokens=source.choice((5, 70)), head=1_000, **sizes)
    if kind == "decoder" and source.random() < 0.5:
        return shapes(model, phase="decode", context=100, batch=source.choice((1, 4)))
    return shapes(model, batch=source.choice((1, 3)))


def array_seconds(made: Placement) -> float:
    """Time for which all arrays of weights together are read [s]."""
    total, engine = 0.0, made.hardware.projection
    for op in made.workload.ops:
        if isinstance(op, StaticMatMul) and isinstance(engine, ArrayEngine):
            matrices = plan(op.outputs, op.inputs, engine.array)
            total += op.vectors * matrices.arrays * array_costs.mvm_cost(matrices, 1, "projection").interval
    return total


def done_over_possible(run: Run) -> dict[str, float]:
    """Part -> what it did over what it can do in the latency."""
    made, seconds, energy = run.placement, run.latency, run.energy_by("component")
    chip = chip_of(made.hardware)
    lanes = made.tiles * chip.cores_per_tile * chip.vector.lanes_per_core
    lane_ops = (energy.get("vector", 0.0) + energy.get("simd", 0.0)) / chip.vector.energy_per_op
    found = {"lanes": lane_ops / (lanes * chip.clock * seconds)}
    found["arrays"] = array_seconds(made) / (made.arrays["projection"] * seconds)
    if chip.network_bandwidth is not None:
        assert isinstance(chip.network_energy, float)
        sent = energy.get("network", 0.0) / chip.network_energy
        found["network"] = sent / (made.tiles * chip.network_bandwidth * seconds)
    if chip.dram is not None:
        found["dram"] = energy.get("dram", 0.0) / chip.dram.energy / (chip.dram.bandwidth * seconds)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_part_does_more_than_it_can(seed: int) -> None:
    source, runs = random.Random(seed), 0
    while runs < 3:
        try:
            run = simulate(work(source), machine(source), source.choice(FLOWS))
        except BadInput:
            continue
        runs += 1
        shares = done_over_possible(run)
        assert max(shares.values()) <= 1 + 1e-9, (shares, run.placement)
