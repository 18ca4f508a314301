"""Event engine, closed form and an independent queueing simulation give the same latency on random pipelines."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.cost.designs.per_design import PerDesign
from ohmformer.cost.placement import Placement, place
from ohmformer.cost.stage import Stage
from ohmformer.dataflow import closed_form
from ohmformer.dataflow.block_recursion import recursive_latencies
from ohmformer.dataflow.blocks.layer_plan import Plans
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.shapes import shapes
from tests.dataflow.build import WAITS, dataflows, made_up, placement, slower, stage, stages
from tests.dataflow.oracle import queueing_latency

DATAFLOWS = dataflows(largest_block=12)
Dataflow = LayerSerial | SequenceBlocking
Waits = tuple[int | None, int | None]


@settings(max_examples=200)
@given(made_up(most_layers=3), DATAFLOWS)
def test_three_ways_agree(made: Placement, dataflow: Dataflow) -> None:
    made = replace(made, kv_sets=1)  # what a dataflow without overlap asks for
    found = build_timeline(made, dataflow).latency
    assert closed_form.latency(made, dataflow) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert queueing_latency(made, dataflow) == pytest.approx(found, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(made_up(most_layers=3), st.integers(1, 12), st.integers(10, 40), st.integers(1, 40), st.booleans())
@pytest.mark.slow
def test_layers_and_samples_that_repeat_are_skipped_exactly(
    made: Placement, block: int, layers: int, batch: int, overlaps: bool
) -> None:
    flow = LayerOverlap(block=block) if overlaps else SequenceBlocking(block=block)
    same = tuple(replace(made.layers[0], name=f"layer {number}") for number in range(layers))
    many = replace(
        made, layers=same, workload=replace(made.workload, batch=batch), kv_sets=made.kv_sets * overlaps or 1
    )
    found = build_timeline(many, flow).latency
    assert closed_form.latency(many, flow) == pytest.approx(found, rel=1e-9, abs=1e-12)


DESIGNS = st.lists(st.tuples(st.integers(1, 12), st.floats(0.2, 3)), min_size=2, max_size=6)
"""Designs, each with tokens per block and by how much its arrays are slower."""


@settings(max_examples=200, deadline=None)
@given(made_up(most_layers=5), st.booleans(), DESIGNS, st.booleans())
@pytest.mark.slow
def test_designs_with_other_blocks_pass_the_recursion_together(
    made: Placement, overlaps: bool, designs: list[tuple[int, float]], own_prices: bool
) -> None:
    made = made if overlaps else replace(made, kv_sets=1)
    tokens = made.layers[0].tokens

    def slowed(factor: Any) -> Placement:
        stages = {id(one): slower(one, factor) if one.name == "key" else one for one in made.layers[0].stages}
        layers = [replace(layer, stages=tuple(stages[id(one)] for one in layer.stages)) for layer in made.layers]
        return replace(made, layers=tuple(layers))

    flows: list[Any] = [(LayerOverlap if overlaps else SequenceBlocking)(block=block) for block, _ in designs]
    factors, count = np.array([factor for _, factor in designs]), len(designs)
    sizes = {tokens: np.array([flow.size_of_block(tokens) for flow in flows])}
    if own_prices:
        found = recursive_latencies(Plans(slowed(PerDesign(factors[::-1])), flows[0]), sizes, np.arange(count)[::-1])
    else:
        found = recursive_latencies(Plans(made, flows[0]), sizes, speed={"key": factors})
    alone = [build_timeline(slowed(factor), flow).latency for (_, factor), flow in zip(designs, flows, strict=True)]
    assert found == pytest.approx(alone, rel=1e-9, abs=1e-12)


def test_a_period_of_two_layers_is_found() -> None:
    """Layers take 21.25 s and 24 s in turn; layers that repeat are skipped in pairs."""
    times = [
        (0.75, 1.75, 3.0),
        (0.0, 0.75, 1.75),
        (1.0, 0.5, 2.75),
        (1.0, 1.0, 1.75),
        (2.25, 1.75, 2.0),
        (2.25, 0.25, 0),
    ]
    names = ("qkv", "write", "key", "value", "output", "ffn1")
    pipeline = [
        stage(name, fixed=fixed, per_token=per_token, floor=floor)
        for name, (fixed, per_token, floor) in zip(names, times, strict=True)
    ]
    flow = LayerOverlap(block=2)
    made = {layers: placement(pipeline, tokens=12, layers=layers) for layers in (40, 41, 42, 20_001)}
    few, odd, even = (build_timeline(made[layers], flow).latency for layers in (40, 41, 42))
    assert (few, odd - few, even - odd) == (922.5, 21.25, 24.0)
    begin = time.process_time()
    assert closed_form.latency(made[20_001], flow) == pytest.approx(odd + (20_001 - 41) / 2 * 45.25, rel=1e-9)
    assert time.process_time() - begin < 1


def test_one_set_of_softmax_units_serves_one_layer_at_a_time_in_every_dataflow() -> None:
    """Two samples, two layers with K arrays of their own: sample 2 in layer 1 and sample 1 in layer 2 take turns."""
    pipeline = [stage("qkv", per_token=1.0), stage("key", per_token=4.0, shared=False)]
    made = placement(pipeline, tokens=1, batch=2, layers=2)
    layers = tuple(replace(layer, softmax=(1,), kept=True) for layer in made.layers)
    one, each = (replace(made, layers=layers, softmax_sets=sets) for sets in ("one", "per_layer"))
    assert build_timeline(each, LayerSerial()).latency == closed_form.latency(each, LayerSerial()) == 14.0
    assert build_timeline(one, LayerSerial()).latency == closed_form.latency(one, LayerSerial()) == 17.0


@given(stages(), st.integers(1, 11), st.integers(1, 3), st.integers(1, 12), st.floats(0.1, 3), WAITS)
def test_designs_are_what_slower_stages_give(
    pipeline: list[Stage], tokens: int, batch: int, block: int, factor: float, waits: Waits
) -> None:
    barrier, gather = waits if len(pipeline) > 3 else (None, None)
    made = placement(pipeline, tokens=tokens, batch=batch, barrier=barrier, gather=gather)
    slowed = [slower(one, factor) if one.name == "key" else one for one in pipeline]
    again = placement(slowed, tokens=tokens, batch=batch, barrier=barrier, gather=gather)
    found = closed_form.latencies(
        made, SequenceBlocking(), closed_form.Designs(np.array([block, 5]), {"key": np.array([factor, 1.0])})
    )
    expected = build_timeline(again, SequenceBlocking(block=block)), build_timeline(made, SequenceBlocking(block=5))
    assert found == pytest.approx([run.latency for run in expected], rel=1e-9, abs=1e-12)


@settings(max_examples=100)
@given(stages(), st.integers(1, 11), st.integers(1, 3), DATAFLOWS)
def test_bounds(pipeline: list[Stage], tokens: int, batch: int, dataflow: Dataflow) -> None:
    run = build_timeline(placement(pipeline, tokens=tokens, batch=batch), dataflow)
    total = sum(job.duration + job.lag for job in run.jobs)
    assert run.latency <= total * (1 + 1e-12)
    assert all(seconds <= run.latency * (1 + 1e-12) for seconds in run.busy.values())
    if run.latency:
        occupancy = [seconds / run.latency for seconds in run.busy.values()]
        assert all(share <= 1 + 1e-9 for share in (*run.utilization.values(), *occupancy))
        assert sum(run.critical_stages().values()) == pytest.approx(run.latency, rel=1e-9)
    assert run.energy == pytest.approx(2 * len(pipeline), rel=1e-9)
    by = [sum(run.energy_by(kind).values()) for kind in ("component", "operation", "engine")]  # type: ignore[arg-type]
    assert by == pytest.approx([run.energy] * 3)


@given(stages(), st.integers(1, 11))
def test_one_block_is_layer_serial(pipeline: list[Stage], tokens: int) -> None:
    made = placement(pipeline, tokens=tokens)
    serial = build_timeline(made, LayerSerial()).latency
    for dependencies in ("exact", "published"):
        blocked = SequenceBlocking(block=tokens, dependencies=dependencies)
        assert build_timeline(made, blocked).latency == pytest.approx(serial)


@given(stages(), st.integers(1, 11), DATAFLOWS)
def test_twice_the_layers_take_twice_the_time(pipeline: list[Stage], tokens: int, dataflow: Dataflow) -> None:
    once, twice = (build_timeline(placement(pipeline, tokens=tokens, layers=n), dataflow).latency for n in (2, 4))
    assert twice == pytest.approx(2 * once)


def test_equal_stages_have_the_known_closed_form() -> None:
    made = placement([stage(name, per_token=0.1) for name in "abcdef"], tokens=512, layers=12, barrier=None)
    published = SequenceBlocking(block=64, dependencies="published")
    assert build_timeline(made, published).latency == pytest.approx(12 * (8 + 6 - 1) * 6.4)
    assert build_timeline(made, LayerSerial()).latency == pytest.approx(12 * 6 * 51.2)
    joined = placement([stage(name, per_token=0.1) for name in "abcdef"], tokens=512, layers=12, barrier=1)
    assert build_timeline(joined, SequenceBlocking(block=64)).latency == pytest.approx(12 * (2 * 8 + 4) * 6.4)


@pytest.mark.slow
def test_designs_are_computed_at_once_as_one_by_one() -> None:
    hardware = load("xformer_tvlsi_2023")
    assert isinstance(hardware, Accelerator)
    made = place(shapes("bert-base", tokens=300), hardware)
    blocks, factors = np.array([1, 7, 64, 128, 300, 512]), np.array([1.0, 2.0, 0.5, 3.0, 1.0, 1.0])
    for dependencies in ("exact", "published"):
        dataflow = SequenceBlocking(dependencies=dependencies)
        found = closed_form.latencies(made, dataflow, closed_form.Designs(blocks, {}))
        alone = [
            build_timeline(made, SequenceBlocking(block=int(b), dependencies=dependencies)).latency for b in blocks
        ]
        assert found == pytest.approx(alone, rel=1e-9)
        slower = closed_form.latencies(made, dataflow, closed_form.Designs(blocks, {"key": factors}))
        assert np.all((slower > found) == (factors > 1))


def test_units_that_stages_share_across_others_have_a_closed_form() -> None:
    hardware = load("puma_asplos_2019")
    assert isinstance(hardware, Accelerator)
    made = place(shapes("t5-base", tokens=20, batch=2), hardware)
    assert any([stage.unit for stage in layer.stages].count("lanes") > 1 for layer in made.layers)
    for dataflow in (LayerSerial(), SequenceBlocking(block=7), LayerSerial(batching="serial")):
        found = queueing_latency(made, dataflow)
        assert build_timeline(made, dataflow).latency == pytest.approx(found, rel=1e-9)
        assert closed_form.latency(made, dataflow) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {"tokens": 100}),
        ("llama-3-8b", {"tokens": 70}),
        ("t5-base", {"tokens": 70}),
        ("vit-base", {"batch": 3}),
        ("gpt2", {"phase": "decode", "context": 50, "batch": 2}),
    ],
)
@pytest.mark.parametrize(
    "accelerator", ["xformer_tvlsi_2023", "puma_asplos_2019", "nvm_ideal", "sram_iso_area", "h100_sxm"]
)
def test_real_models_agree_on_all_accelerators(name: str, changes: dict[str, int], accelerator: str) -> None:
    hardware = load(accelerator)
    assert isinstance(hardware, Accelerator)
    made = place(shapes(name, **changes), hardware)  # type: ignore[arg-type]
    for dataflow in (LayerSerial(), SequenceBlocking(block=32), SequenceBlocking(block=32, dependencies="published")):
        assert closed_form.latency(made, dataflow) == pytest.approx(build_timeline(made, dataflow).latency, rel=1e-9)
