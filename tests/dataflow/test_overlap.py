"""Overlapping layers: event engine, closed form, a list scheduler and calculations by hand agree."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.cost.placement import Placement
from ohmformer.dataflow import closed_form
from ohmformer.dataflow.job_list import JobList
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from tests.dataflow.build import made_up, placement, slower, stage
from tests.dataflow.list_scheduler import list_schedule


def machine(name: str) -> Accelerator:
    found = of.load(name)
    assert isinstance(found, Accelerator)
    return found


@settings(max_examples=200)
@given(made_up(), st.integers(1, 12))
def test_engine_closed_form_and_list_scheduler_agree(made: Placement, block: int) -> None:
    flow = LayerOverlap(block=block)
    run = build_timeline(made, flow)
    scheduled, longest = list_schedule(made, flow)
    assert run.latency == pytest.approx(scheduled, rel=1e-9, abs=1e-12)
    assert closed_form.latency(made, flow) == pytest.approx(scheduled, rel=1e-9, abs=1e-12)
    assert scheduled >= longest * (1 - 1e-12)
    assert all(busy <= run.latency * (1 + 1e-9) for busy in run.busy.values())
    assert sum(run.critical_stages().values()) == pytest.approx(run.latency, rel=1e-9, abs=1e-12)


@given(made_up(), st.integers(1, 12))
def test_samples_one_by_one_take_their_times_in_a_row(made: Placement, block: int) -> None:
    flow = LayerOverlap(block=block, batching="serial")
    found = build_timeline(made, flow).latency
    assert closed_form.latency(made, flow) == pytest.approx(found, rel=1e-9, abs=1e-12)


@settings(max_examples=100)
@given(made_up(), st.integers(1, 12))
def test_never_above_exact_dependencies_without_overlap(made: Placement, block: int) -> None:
    exact = build_timeline(made, SequenceBlocking(block=block)).latency
    assert build_timeline(made, LayerOverlap(block=block)).latency <= exact * (1 + 1e-12)


@settings(max_examples=100)
@given(made_up(), st.integers(1, 12), st.integers(0, 6), st.floats(1, 4))
def test_a_slower_stage_never_makes_it_faster(made: Placement, block: int, which: int, factor: float) -> None:
    flow = LayerOverlap(block=block)

    layers = tuple(
        replace(entry, stages=tuple(slower(s, factor) if i == which else s for i, s in enumerate(entry.stages)))
        for entry in made.layers
    )
    before, after = closed_form.latency(made, flow), closed_form.latency(replace(made, layers=layers), flow)
    assert after >= before * (1 - 1e-9)


@pytest.mark.parametrize(
    ("layers", "blocks", "steps"),
    [(12, 8, 6), (1, 5, 4), (7, 1, 3), pytest.param(100_000, 8, 6, marks=pytest.mark.slow)],
)
def test_equal_stages_take_the_known_block_times(layers: int, blocks: int, steps: int) -> None:
    pipeline = [stage(name, per_token=1.0) for name in "abcdef"[:steps]]
    causal = placement(pipeline, tokens=blocks, layers=layers)
    both_ways = placement(pipeline, tokens=blocks, layers=layers, barrier=1)
    flow = LayerOverlap(block=1)
    assert closed_form.latency(causal, flow) == pytest.approx(layers * steps + blocks - 1, rel=1e-9)
    by_hand = layers * (blocks + steps - 1) + blocks - 1
    assert closed_form.latency(both_ways, flow) == pytest.approx(by_hand, rel=1e-9)
    if layers < 100:
        assert build_timeline(causal, flow).latency == pytest.approx(layers * steps + blocks - 1, rel=1e-12)
        assert build_timeline(both_ways, flow).latency == pytest.approx(by_hand, rel=1e-12)


def test_fills_and_links_delay_results_and_leave_units_free() -> None:
    """Two stages of 1 s a block, each with 10 s of fill: 4 blocks take 2 (1 + 10) + 3 s, not 5 times 11."""
    made = placement([stage(name, per_token=1.0, fixed=10.0) for name in ("a", "b")], tokens=4, layers=1)
    assert build_timeline(made, LayerOverlap(block=1)).latency == 25.0
    assert build_timeline(made, SequenceBlocking(block=1)).latency == 25.0


def test_a_second_set_of_cells_lets_the_next_layer_write_while_this_one_reads() -> None:
    """A write of 4 s hides behind a read of 6 s, if it has cells of its own."""
    pipeline = [stage("write", floor=4.0), stage("key", floor=6.0)]
    one = placement(pipeline, tokens=2, layers=3)
    flow = LayerOverlap(block=1)
    assert build_timeline(one, flow).latency == 3 * (4 + 2 * 6)
    assert build_timeline(replace(one, kv_sets=2), flow).latency == 4 + 3 * 2 * 6


def test_one_set_of_softmax_units_is_used_by_one_layer_at_a_time() -> None:
    pipeline = [stage("qkv", per_token=1.0), stage("key", per_token=2.0, shared=False)]
    own = placement(pipeline, tokens=8, layers=4)
    layers = tuple(replace(layer, softmax=(1,)) for layer in own.layers)
    both = [
        build_timeline(replace(own, layers=layers, softmax_sets=sets), LayerOverlap(block=1)).latency
        for sets in ("per_layer", "one")
    ]
    assert both == [4 * 3 + 7 * 2, 1 + 4 * 8 * 2]


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("bert-base", {"tokens": 200, "batch": 2}),
    ("gpt2", {"tokens": 200, "batch": 2}),
    ("t5-base", {"tokens": 70, "batch": 2}),
    ("gpt2", {"phase": "decode", "context": 50, "batch": 3}),
    ("llama-3-8b", {"tokens": 130}),
]


@pytest.mark.parametrize(("name", "sizes"), MODELS)
@pytest.mark.parametrize(
    "hardware", ["xformer_tvlsi_2023", "puma_asplos_2019", "nvm_ideal", "sram_iso_area", "h100_sxm"]
)
@pytest.mark.slow
def test_real_models_agree_on_all_accelerators(name: str, sizes: dict[str, Any], hardware: str) -> None:
    work, accelerator = of.shapes(name, **sizes), machine(hardware)
    for flow in (LayerOverlap(block=32), LayerOverlap(block=32, batching="serial")):
        run = of.simulate(work, accelerator, flow)
        found = of.explore([(work, accelerator, flow)])
        assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
        assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
        assert found.area[0] == pytest.approx(run.area, rel=1e-9)
        exact = of.simulate(work, accelerator, SequenceBlocking(block=32, batching=flow.batching))
        assert run.latency <= exact.latency * (1 + 1e-12)
        if hardware != "sram_iso_area" and flow.batching == "pipelined":  # the scheduler knows no setup
            scheduled, longest = list_schedule(run.placement, flow)
            assert run.latency == pytest.approx(scheduled, rel=1e-9)
            assert run.latency >= longest * (1 - 1e-9)


def test_x_former_meets_its_published_latency_with_exact_dependencies() -> None:
    """0.98 ms are published for BERT-base at 512 tokens. 12 x 13 + 7 block times of 6.4 us are 1.043 ms, 6 % above; the
    rest is the embedding and the last fills and links. The time of a block is pinned by no other figure of the paper,
    so 10 % is the tolerance that the claims on latency have, too."""
    run = of.simulate(of.shapes("bert-base", tokens=512), machine("xformer_tvlsi_2023"), LayerOverlap(block=64))
    assert run.latency == pytest.approx(163 * 6.4e-6, rel=0.005)
    assert run.latency == pytest.approx(0.98e-3, rel=0.1)


@pytest.mark.parametrize(
    ("name", "tokens", "milliseconds"),
    [("gpt2", 1024, 0.645), ("llama-3-8b", 2048, 3.589), ("llama-3-8b", 8192, 8.833)],
)
def test_causal_prefill_on_arrays_of_each_layer(name: str, tokens: int, milliseconds: float) -> None:
    """Queries read only the keys up to their own."""
    work, hardware = of.shapes(name, tokens=tokens), machine("nvm_ideal")
    begin = time.process_time()
    found = of.explore([(work, hardware, LayerOverlap())]).latency[0]
    assert time.process_time() - begin < 1
    assert found == pytest.approx(milliseconds * 1e-3, rel=1e-3)


def test_sets_of_cells_and_softmax_units_count_in_area_and_wear() -> None:
    work, xformer, nvm = of.shapes("bert-base", tokens=128), machine("xformer_tvlsi_2023"), machine("nvm_ideal")
    one, two = (of.simulate(work, xformer, LayerOverlap(kv_cells=cells)) for cells in ("single", "double"))
    for role in ("attention.key", "attention.value"):
        assert two.placement.arrays[role] == 2 * one.placement.arrays[role]
    assert two.area > one.area
    assert nvm.chip is not None
    assert nvm.chip.softmax is not None
    each, shared = (of.simulate(work, nvm, LayerOverlap(softmax=kind)) for kind in ("per_layer", "shared"))
    assert each.area - shared.area == pytest.approx(11 * 12 * nvm.chip.softmax.area_per_head)
    assert shared.area == pytest.approx(of.simulate(work, nvm, LayerSerial()).area)
    found = of.explore([(work, nvm, flow) for flow in (LayerOverlap(), LayerOverlap(softmax="shared"), LayerSerial())])
    assert found.area == pytest.approx([each.area, shared.area, shared.area])


@pytest.mark.parametrize(
    ("hardware", "fields", "said"),
    [
        (
            "nvm_ideal",
            {"kv_cells": "double"},
            "dataflow.kv_cells = 'double': hardware.attention.arrays = 'per_layer'.*leave",
        ),
        ("puma_asplos_2019", {"kv_cells": "double"}, "dataflow.kv_cells = 'double': .*leave it out"),
        ("xformer_tvlsi_2023", {"softmax": "shared"}, "dataflow.softmax = 'shared': .*leave it out"),
        ("h100_sxm", {"softmax": "shared"}, "dataflow.softmax = 'shared': .*leave it out"),
    ],
)
def test_fields_that_do_not_apply_are_refused(hardware: str, fields: dict[str, Any], said: str) -> None:
    work = of.shapes("bert-base", tokens=64)
    with pytest.raises(BadInput, match=said):
        of.simulate(work, machine(hardware), LayerOverlap(**fields))
    with pytest.raises(BadInput, match=said):
        of.explore([(work, machine(hardware), LayerOverlap(**fields))])


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("kv_sets", 0, r"Odd.kv_sets\(\): gives 0; return 1 or 2"),
        ("kv_sets", "two", r"Odd.kv_sets\(\): gives 'two'; return 1 or 2"),
        ("softmax_sets", 12, r"Odd.softmax_sets\(\): gives 12; return 'one' or 'per_layer'"),
    ],
)
def test_wrong_sets_of_a_dataflow_are_one_line(method: str, given: Any, said: str) -> None:
    odd = type("Odd", (LayerSerial,), {method: lambda self: given})
    with pytest.raises(BadInput, match=said):
        of.simulate(of.shapes("bert-base", tokens=64), machine("nvm_ideal"), odd())


def test_a_job_of_a_layer_or_stage_that_is_not_there_is_one_line() -> None:
    todo = JobList(placement([stage("qkv")]))
    for layer, number in ((2, 0), (-1, 0), (0, 1)):
        with pytest.raises(BadInput, match=r"JobList.add\(layer=.*: is not a position in Placement.layers"):
            todo.add(layer, number, 1)


def test_large_sizes_are_computed_or_refused_in_one_line() -> None:
    nvm = machine("nvm_ideal")
    million = of.shapes("gpt2", phase="decode", context=9, batch=1_000_000)
    assert of.explore([(million, nvm, LayerOverlap())]).latency[0] > 1
    with pytest.raises(BadInput, match=r"model.batch = 1000000: takes .* lower batch or seq_len, or take of.explore"):
        of.simulate(million, nvm, LayerOverlap())
    with pytest.raises(BadInput, match=r"model.batch = 1000000: takes .* lower batch"):
        of.explore([(of.shapes("bert-base", batch=1_000_000), nvm, LayerOverlap(block=8))])


@pytest.mark.parametrize("flow", [LayerOverlap(), SequenceBlocking(), LayerSerial()])
@pytest.mark.parametrize("hardware", ["xformer_tvlsi_2023", "nvm_ideal", "sram_iso_area"])
def test_a_large_batch_costs_its_slowest_unit_for_each_sample(flow: Any, hardware: str) -> None:
    """Samples that only repeat the one before are skipped: 20,000 take what the event engine says of 30 and 20."""
    accelerator = machine(hardware)
    few, more = (of.simulate(of.shapes("bert-base", tokens=96, batch=n), accelerator, flow).latency for n in (20, 30))
    found = of.explore([(of.shapes("bert-base", tokens=96, batch=20_000), accelerator, flow)]).latency[0]
    assert found == pytest.approx(more + (20_000 - 30) * (more - few) / 10, rel=1e-9)


def test_designs_scale_stages_and_blocks() -> None:
    made = placement([stage(name, per_token=1.0, fixed=0.5) for name in ("qkv", "key", "value")], tokens=10, barrier=1)
    found = closed_form.latencies(
        made, LayerOverlap(), closed_form.Designs(np.array([2, 5]), {"key": np.array([3.0, 1.0])})
    )
    slower = tuple(replace(s, per_token=3.0, fixed=1.5) if s.name == "key" else s for s in made.layers[0].stages)
    slow = replace(made, layers=tuple(replace(entry, stages=slower) for entry in made.layers))
    expected = build_timeline(slow, LayerOverlap(block=2)).latency, build_timeline(made, LayerOverlap(block=5)).latency
    assert found == pytest.approx(expected, rel=1e-9)
