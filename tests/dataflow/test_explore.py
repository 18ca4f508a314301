"""Many design points at once give what `simulate` gives for each."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.dataflow import explore as explore_module
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.points import together
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.memory import Memory
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip
from ohmformer.schema import walk
from ohmformer.workload.shapes import Transformer, shapes
from tests.dataflow.build import dataflows

DATAFLOWS = dataflows(largest_block=40)


def accelerator(name: str) -> Accelerator:
    found = load(name)
    assert isinstance(found, Accelerator)
    return found


MACHINES = [
    accelerator(name) for name in ("xformer_tvlsi_2023", "puma_asplos_2019", "nvm_ideal", "sram_iso_area", "h100_sxm")
]
WORKS = st.one_of(
    st.builds(shapes, st.just("bert-base"), tokens=st.integers(1, 90), batch=st.integers(1, 2)),
    st.builds(shapes, st.just("t5-base"), tokens=st.integers(2, 30), batch=st.integers(1, 2)),
    st.builds(shapes, st.just("gpt2"), phase=st.just("decode"), context=st.integers(0, 90)),
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(WORKS, min_size=1, max_size=2),
    st.lists(st.sampled_from(MACHINES), min_size=1, max_size=2),
    st.lists(DATAFLOWS, min_size=1, max_size=3),
)
def test_all_points_at_once_are_what_each_takes_alone(
    works: list[of.Workload], machines: list[Accelerator], dataflows: list[LayerSerial | SequenceBlocking]
) -> None:
    points = [DesignPoint(*point) for point in product(works, machines, dataflows)]
    found = explore(points)
    runs = [simulate(*point) for point in points]
    assert found.latency == pytest.approx([run.latency for run in runs], rel=1e-9)
    assert found.energy == pytest.approx([run.energy for run in runs], rel=1e-9)
    assert found.area == pytest.approx([run.area for run in runs], rel=1e-9)
    assert [one.counts for one in found.placements] == [run.placement.counts for run in runs]


def test_changed_prices_and_a_clip_are_seen() -> None:
    work, machine = shapes("bert-base", tokens=64), MACHINES[2]
    dearer = of.replace(machine, "projection.array.cost.read_energy", 1e-9)
    found = explore([DesignPoint(work, each, LayerSerial()) for each in (machine, dearer)])
    assert found.latency[0] == found.latency[1]
    assert found.energy[1] > found.energy[0]
    point, clip = DesignPoint(work, accelerator("clipformer_tcad_2024"), LayerSerial()), KVClip(alpha=0.0, beta=0.25)
    clipped = explore([point], clip=clip)
    assert clipped.energy[0] == pytest.approx(simulate(*point, clip=clip).energy)
    assert clipped.energy[0] < explore([point]).energy[0]


def test_no_points_are_refused() -> None:
    with pytest.raises(BadInput, match="points: is empty; give at least one"):
        explore([])


def test_layers_of_equal_work_are_priced_once() -> None:
    table = Transformer(title="deep", kind="encoder", layers=30, width=64, heads=4, hidden=128, tokens=32)
    placed = explore([DesignPoint(shapes(table), MACHINES[0], LayerSerial())]).placements[0]
    assert [(len(layer.stages), count) for layer, count in placed.distinct()] == [(7, 30), (1, 1)]
    assert len({id(layer.stages) for layer in placed.layers}) == 2
    assert [layer.name for layer in placed.layers] == [*(f"layer {n}" for n in range(30)), "head"]


DRAM = Memory(capacity=1e12, bandwidth=2e9, energy=3e-11)
CHANGES: list[tuple[str, Any]] = [
    ("chip.idle_tiles", "gated"),
    ("chip.dram", DRAM),
    ("attention.refresh", 2e-3),
    ("attention.write_lines", "columns"),
    ("attention.write_lines", "transposable"),
    ("attention.key.written", "left"),
    ("attention.arrays", "shared"),
    ("attention.key.resident", 20),
    ("attention.value.resident", 30),
    ("attention.key.overflow", "spill"),
    ("attention.array.write_verify", {"tolerance": 0.1, "writes": 3}),
]
"""Features of accelerators whose prices differ in kind."""
STRUCTURES: list[tuple[str, Any]] = [
    ("projection.array.adc.columns_per_adc", 4),
    ("projection.array.adc.bits", 6),
    ("projection.array.rows", 64),
    ("projection.array.inputs.bits", 4),
    ("attention.key.resident", 40),
]
"""Values other than numbers, which set accelerators apart."""


def changed(machine: Accelerator, path: str, value: object) -> Accelerator:
    """The accelerator with a change, or as it is if it has no such field or refuses the value."""
    try:
        return of.replace(machine, path, value)
    except BadInput:
        return machine


@st.composite
def sweeps(draw: st.DrawFn) -> list[Accelerator]:
    """Accelerators that differ in a few of their numbers, and some in more than numbers."""
    base = draw(st.sampled_from([*MACHINES, accelerator("gain_cell_leroux_2025"), accelerator("isaac_isca_2016")]))
    for path, value in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        base = changed(base, path, value)
    numbers = [(path, value) for path, value, _ in walk(base) if isinstance(value, float)]
    chosen = draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=5))
    factors = st.sampled_from([0.1, 0.5, 1.0, 1.0, 1.7, 4.0, 10.0])
    found = []
    for _ in range(draw(st.integers(4, 7))):
        machine = base
        for path, value in chosen:
            machine = changed(machine, path, value * draw(factors))
        for path, structure in draw(st.lists(st.sampled_from(STRUCTURES), max_size=1)):
            machine = changed(machine, path, structure)
        found.append(machine)
    return found


ALL_DATAFLOWS = st.one_of(DATAFLOWS, st.builds(LayerOverlap, block=st.integers(4, 40)))
CAUSAL = st.builds(
    shapes, st.just("gpt2"), phase=st.just("prefill"), tokens=st.integers(1, 90), batch=st.integers(1, 2)
)


def expect_what_each_takes_alone(points: list[DesignPoint]) -> None:
    """Compare latency, energy and area with those of `simulate`, or the message of the first that is refused."""
    message = ""
    try:
        runs = [simulate(*point) for point in points]
    except BadInput as error:
        message = str(error)
    if message:
        with pytest.raises(BadInput) as refused:
            explore(points)
        assert str(refused.value) == message
        return
    found = explore(points)
    assert found.latency == pytest.approx([run.latency for run in runs], rel=1e-9)
    assert found.energy == pytest.approx([run.energy for run in runs], rel=1e-9)
    assert found.area == pytest.approx([run.area for run in runs], rel=1e-9)


@settings(max_examples=12, deadline=None)
@given(st.one_of(WORKS, CAUSAL), sweeps(), ALL_DATAFLOWS)
def test_a_sweep_over_any_fields_is_what_each_accelerator_takes_alone(
    work: of.Workload, machines: list[Accelerator], dataflow: Dataflow
) -> None:
    expect_what_each_takes_alone([DesignPoint(work, machine, dataflow) for machine in machines])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.one_of(WORKS, CAUSAL), sweeps(), st.lists(ALL_DATAFLOWS, min_size=1, max_size=2))
def test_many_sweeps_over_any_fields_are_what_each_accelerator_takes_alone(
    work: of.Workload, machines: list[Accelerator], dataflows: list[Dataflow]
) -> None:
    expect_what_each_takes_alone([DesignPoint(work, *pair) for pair in product(machines, dataflows)])


PATHS = [
    "projection.array.cost.adc_energy",
    "projection.array.cost.read_time",
    "attention.array.cost.read_time",
    "attention.key.array.cell.write_time",
    "chip.network_latency",
    "chip.tile_power",
    "chip.clock",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dataflow", [SequenceBlocking(block=16), LayerOverlap(block=16)])
@pytest.mark.parametrize("phase", ["encode", "prefill"])
def test_a_sweep_over_one_number_is_placed_at_once(
    path: str, dataflow: Dataflow, phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only designs that decide differently are placed apart, such as one whose K and V have equal arrays."""
    machine = MACHINES[0]
    value = {path: value for path, value, _ in walk(machine)}.get(path) or 1e-8
    machines = [of.replace(machine, path, value * (1 + step / 10_000)) for step in range(60)]
    work = shapes("bert-base" if phase == "encode" else "gpt2", phase=phase, tokens=64, batch=2)
    placed: list[Accelerator] = []
    place = explore_module.place_for

    def counted(flow: Dataflow, work: of.Workload, hardware: Accelerator, **options: Any) -> Any:
        placed.append(hardware)
        return place(flow, work, hardware, **options)

    monkeypatch.setattr(explore_module, "place_for", counted)
    found = explore([DesignPoint(work, machine, dataflow) for machine in machines])
    assert len(placed) <= 3
    for number in (0, 31, 59):
        alone = simulate(work, machines[number], dataflow)
        assert found.latency[number] == pytest.approx(alone.latency, rel=1e-9)
        assert found.energy[number] == pytest.approx(alone.energy, rel=1e-9)
        assert found.placements[number].area == alone.area


def test_a_sweep_over_an_array_whose_prices_follow_laws_is_placed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    larger = of.replace(MACHINES[0], "projection.array.cost.law", {"kind": "lines"})
    larger = of.replace(of.replace(larger, "projection.array.rows", 256), "projection.array.adc.bits", 6)
    times = [1e-7 * (1 + step / 50) for step in range(30)]
    machines = [of.replace(larger, "projection.array.cost.read_time", time) for time in times]
    counts: list[int] = []
    monkeypatch.setattr(explore_module.Priced, "of", _counted(explore_module.Priced.of, counts))
    work = shapes("bert-base", tokens=64)
    found = explore([DesignPoint(work, machine, LayerSerial()) for machine in machines])
    assert counts == [30]
    assert found.latency == pytest.approx([simulate(work, machine).latency for machine in machines], rel=1e-9)


def _counted(price: Any, counts: list[int]) -> Any:
    """The function `Priced.of`, which then also notes how many designs it prices."""

    def counted(placement: Any, count: int) -> Any:
        counts.append(count)
        return price(placement, count)

    return counted


def test_equal_dataflows_of_a_sweep_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [of.replace(MACHINES[0], PATHS[1], 1e-8 * (1 + step / 50)) for step in range(20)]
    work = shapes("gpt2", phase="prefill", tokens=60)
    calls: list[int] = []
    recursion = together.recursive_latencies

    def counted(plans: Any, sizes: Any, *rest: Any) -> Any:
        calls.append(len(sizes[60]))
        return recursion(plans, sizes, *rest)

    monkeypatch.setattr(together, "recursive_latencies", counted)
    points = [DesignPoint(work, machine, SequenceBlocking(block=16)) for machine in machines]
    found = explore(points)
    assert calls == [20]
    assert found.latency == pytest.approx([simulate(*point).latency for point in points], rel=1e-9)


def test_placements_of_a_sweep_are_those_of_each_accelerator() -> None:
    machines = [of.replace(MACHINES[0], PATHS[0], 1e-12 * (1 + step)) for step in range(5)]
    work = shapes("bert-base", tokens=64)
    found = explore([DesignPoint(work, machine, LayerSerial()) for machine in machines]).placements
    assert [placement.energy for placement in found] == [
        simulate(work, machine).placement.energy for machine in machines
    ]
    assert len(found) == 5
    assert found[1:3] == (found[1], found[2])
    assert found[-1] is found[4]
