"""Causal products read and convert only the keys that are there: hand calculations, sums and laws."""

from __future__ import annotations

from math import ceil, inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.array.event_counter import Counts
from ohmformer.cost.attention.partial_reads import key_read_times, partial_reads, query_read_time
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, KeyTimes, PerQueryCost
from ohmformer.cost.operands import computed_macs
from ohmformer.cost.placement import Placement, place
from ohmformer.cost.stage import Stage
from ohmformer.dataflow import closed_form
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import plan
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import DynamicMatMul

SMALL = Transformer(title="small", kind="decoder", layers=2, width=16, heads=4, kv_heads=2, hidden=20, tokens=10)
"""Four heads of four features, two of which share K and V."""


def machine(name: str, **changes: Any) -> Accelerator:
    found = of.load(name)
    assert isinstance(found, Accelerator)
    for field, value in changes.items():
        found = of.replace(found, field.replace("__", "."), value)
    return found


def stages(placement: Placement, layer: int = 0) -> dict[str, Stage]:
    return {stage.name: stage for stage in placement.layers[layer].stages}


@given(st.integers(1, 40), st.integers(0, 30), st.integers(1, 9), st.sampled_from([inf, 1, 5, 12, 33]))
def test_sums_over_queries_are_what_a_loop_adds_up(queries: int, cached: int, size: int, most: float) -> None:
    seen = KeysPerQuery(cached + 1, queries, 1)
    keys = [cached + 1 + each for each in range(queries)]
    assert seen.blocks(size, most) == sum(ceil(min(n, most) / size) for n in keys)
    part = PerQueryCost(0.25, (KeyTerm(3.0, size, most), KeyTerm(-1.0, 1, inf)))
    other = PerQueryCost(-2.0, (KeyTerm(1.0, 2, inf),))
    times = KeyTimes(seen, (part, other))
    each = [max(one.of(n) for one in (part, other)) for n in keys]
    assert part.total(seen) == pytest.approx(sum(part.of(n) for n in keys))
    assert times.total == pytest.approx(sum(each))
    blocks = [sum(each[begin : begin + size]) for begin in range(0, queries, size)]
    assert times.by_block(size) == pytest.approx(blocks)
    assert times.time(queries // 2, queries - queries // 2) == pytest.approx(sum(each[queries // 2 :]))


def _by_loop(op: DynamicMatMul, array: Any, left: bool) -> Counts:
    """Events of a causal product, query by query (or key by key, where Q is stored), on matrices cut to size."""
    total, cached = Counts(), op.tokens - op.queries
    for head in range(op.kv_heads if not left else op.heads):
        del head
        if left:
            for key in range(op.tokens):
                hidden = max(0, key - cached)
                blocks = range(ceil(op.queries / array.columns))
                for block in blocks:
                    here = range(block * array.columns, min(op.queries, (block + 1) * array.columns))
                    used = sum(query >= hidden for query in here)
                    total += plan(used, op.inputs, array).reads(op.batch) if used else Counts()
            continue
        for query in range(op.queries):
            n = cached + query + 1
            sizes = (n, op.inputs) if op.role == "attention.key" else (op.outputs, n)
            total += plan(*sizes, array).reads(op.batch * op.group)
    return total


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize(
    ("role", "left"), [("attention.key", False), ("attention.key", True), ("attention.value", False)]
)
@pytest.mark.parametrize("cached", [0, 5])
def test_events_are_those_of_matrices_cut_to_size(encoding: str, role: Any, left: bool, cached: int) -> None:
    array = machine("clipformer_tcad_2024", attention__array__encoding=encoding).attention.array
    array = of.replace(of.replace(array, "rows", 3), "columns", 4)
    tokens, d = cached + 11, 7
    sizes = (d, tokens) if role == "attention.key" else (tokens, d)
    op = DynamicMatMul("x", "key", 0, role, 2, 4, 2, 11, *sizes, 11, causal=True)
    whole = (op.queries, d) if left else (tokens, d) if role == "attention.key" else (d, tokens)
    matrices = plan(*whole, array, matrices=op.heads if left else op.kv_heads)
    found = partial_reads(op, matrices, KeysPerQuery.of(op), inf, left=left)
    assert found.counts == _by_loop(op, array, left)


def test_a_prefill_by_hand() -> None:
    """Ten tokens on arrays of 4 x 4: query n converts n columns of K in each input bit, in ceil(n / 4) arrays."""
    hardware = machine("nvm_ideal", attention__array__size=4, attention__array__adc__columns_per_adc=4)
    engine = hardware.attention.key
    assert isinstance(engine, ArrayEngine)
    array = engine.array
    slices, reference = array.slices(), array.encoding == "offset"
    assert reference
    placement = place(shapes(SMALL), hardware)
    key, value = (stages(placement)[name].counts for name in ("key", "value"))
    seen, blocks = sum(range(1, 11)), 4 * 1 + 4 * 2 + 2 * 3
    assert key.adc_conversions == 4 * array.cycles() * slices * (seen + blocks)
    assert key.activations == 4 * array.cycles() * slices * blocks
    assert value.adc_conversions == 4 * array.cycles() * slices * blocks * (4 + 1)
    assert value.activations == 4 * array.cycles() * slices * blocks
    assert value.cell_reads == 4 * array.cycles() * slices * seen * (4 + 1)


def test_time_of_a_block_by_hand() -> None:
    """GPT-2 on `nvm_ideal`: query n takes max(10 ns, 0.78125 ns min(n, 128)), or n / 8 ns of softmax."""
    placement = place(shapes("gpt2", tokens=1024), machine("nvm_ideal"))
    stage = stages(placement, 1)["key"]

    def of_query(n: int) -> float:
        return max(10e-9, 100e-9 / 128 * min(n, 128), n / 8 * 1e-9)

    for first, tokens in ((0, 1), (0, 64), (64, 64), (960, 64), (0, 1024), (5, 300)):
        expected = sum(of_query(n) for n in range(first + 1, first + tokens + 1))
        assert stage.occupancy(tokens, first) == pytest.approx(expected, rel=1e-12)
    softmax = 1.87e-12 * 12 * 1024 * 1025 / 2
    assert stage.energy["softmax"] == pytest.approx(softmax)


def test_lanes_multiply_and_normalize_only_the_scores_that_are_there() -> None:
    """PUMA: two operations for each of 64 products of a score and of its weight, four for its softmax."""
    work, hardware = shapes("gpt2", tokens=100), machine("puma_asplos_2019", chip__softmax=None)
    stage = next(each for each in place(work, hardware).layers[1].stages if "key" in each.name)
    assert hardware.chip is not None
    scores, per_op = 12 * 100 * 101 / 2, hardware.chip.vector.energy_per_op
    assert stage.energy["simd"] == pytest.approx(2 * scores * 2 * 64 * per_op)
    key = next(part for part in stage.parts if part.name == "key")
    assert key.energy["vector"] == pytest.approx(4 * scores * per_op)
    assert key.by_keys is not None
    mean = key.by_keys.total / 100
    assert key.occupancy(1, 99) == pytest.approx(mean * 100 / 50.5)


@pytest.mark.parametrize("name", ["nvm_ideal", "clipformer_tcad_2024", "puma_asplos_2019", "xformer_tvlsi_2023"])
def test_a_prefill_is_what_its_tokens_see_one_by_one(name: str) -> None:
    """Conversions and attention's dynamic work add up to those of a decoder that makes the same tokens in turn."""
    hardware, count = machine(name, attention__arrays="per_layer"), 12
    whole = place(shapes(SMALL, tokens=count), hardware)
    steps = [place(shapes(SMALL, phase="decode", context=n), hardware) for n in range(count)]
    for stage in ("key", "value"):
        picked = [[one for one in each.stages() if stage in one.name.split("+")] for each in (whole, *steps)]
        if hardware.attention.key.kind != "sram":  # a decoder stores one query, a prefill all of them
            conversions = [sum(one.counts.adc_conversions for one in stages) for stages in picked]
            assert conversions[0] == sum(conversions[1:])
    macs = [sum(computed_macs(op) for op in each.workload.dynamic) for each in (whole, *steps)]
    assert macs[0] == sum(macs[1:])


@pytest.mark.parametrize("name", ["nvm_ideal", "puma_asplos_2019", "clipformer_tcad_2024", "xformer_tvlsi_2023"])
@pytest.mark.parametrize(
    "sizes", [{"tokens": 90}, {"tokens": 40, "context": 50, "batch": 2}, {"tokens": 33, "batch": 3}]
)
def test_event_engine_and_closed_form_agree(name: str, sizes: dict[str, Any]) -> None:
    made = place(shapes("gpt2", phase="prefill", **sizes), machine(name))
    for flow in (LayerSerial(), SequenceBlocking(block=16), SequenceBlocking(block=16, batching="serial")):
        found = build_timeline(made, flow).latency
        assert closed_form.latency(made, flow) == pytest.approx(found, rel=1e-9)
    pair = (made.workload, made.hardware, LayerOverlap(block=7))
    run = of.simulate(*pair)
    assert of.explore([pair]).latency[0] == pytest.approx(run.latency, rel=1e-9)
    assert run.energy == pytest.approx(sum(run.energy_by("operation").values()))


@pytest.mark.parametrize("resident", [5, 16, 30])
@pytest.mark.parametrize("overflow", ["rewrite", "spill"])
def test_tokens_beyond_the_cells_are_those_that_a_query_sees(resident: int, overflow: str) -> None:
    """A query takes as many turns as the keys that it sees need; lanes multiply by those without cells alone."""
    hardware = machine("nvm_ideal")
    for role in ("key", "value"):
        hardware = of.replace(hardware, f"attention.{role}.resident", resident)
        hardware = of.replace(hardware, f"attention.{role}.overflow", overflow)
    work = shapes("gpt2", tokens=30)
    hardware = of.replace(hardware, "chip.buffer_capacity", "10 MB")
    hardware = of.replace(hardware, "chip.buffer_bandwidth", "100 GB/s")
    stage = stages(place(work, hardware), 1)["value"]
    turns = [ceil(n / resident) if overflow == "rewrite" else 1 for n in range(1, 31)]
    per_vector = 100e-9
    if overflow == "rewrite":
        assert stage.time(30) - stage.fixed == pytest.approx(sum(turns) * per_vector)
    macs = 2 * 12 * 64 * sum(max(0, n - resident) for n in range(1, 31)) if overflow == "spill" else 0
    sums = 12 * 64 * sum(n > resident for n in range(1, 31)) if overflow == "spill" else 0
    assert hardware.chip is not None
    expected = (macs + sums) * hardware.chip.vector.energy_per_op
    assert stage.energy.get("vector", 0.0) == pytest.approx(expected)


def test_longer_prefills_never_cost_less_and_causal_ones_never_more_than_all_keys() -> None:
    hardware = machine("nvm_ideal")
    runs = [of.simulate(shapes("gpt2", tokens=n), hardware) for n in (1, 2, 63, 64, 65, 127, 128, 129, 300)]
    assert sorted(run.latency for run in runs) == [run.latency for run in runs]
    assert sorted(run.energy for run in runs) == [run.energy for run in runs]
    both_ways = Transformer(**{**SMALL.model_dump(), "kind": "encoder"})
    for tokens in (1, 7, 150):
        causal, full = (of.simulate(shapes(table, tokens=tokens), hardware) for table in (SMALL, both_ways))
        assert causal.latency <= full.latency * (1 + 1e-12)
        dynamic = [sum(run.placement.energy.values()) for run in (causal, full)]
        assert dynamic[0] <= dynamic[1] * (1 + 1e-12)


def test_a_million_tokens_answer_in_seconds() -> None:
    table = Transformer(**{**SMALL.model_dump(), "layers": 3})
    work = shapes(table, tokens=1_000_000)
    run = closed_form.latency(place(work, machine("nvm_ideal")), SequenceBlocking(block=1000))
    assert run > 1e6 * 1e6 / 2 / 8 * 1e-9 * 3


ONE_ACCESS = of.load("xformer_tvlsi_2023").attention.key.array
BIT_SERIAL = of.load("xformer_tvlsi_2023_bit_serial").attention.key.array
INTEGRATED = of.load("neurram_nature_2022").projection.array
STORING_Q = [
    INTEGRATED,
    *(of.replace(array, "adc.columns_per_adc", 2**n) for array in (ONE_ACCESS, BIT_SERIAL) for n in range(8)),
]


@given(st.integers(1, 60), st.integers(0, 40), st.integers(1, 70), st.sampled_from(STORING_Q))
def test_stored_queries_are_read_for_the_keys_that_they_see(queries: int, cached: int, slots: int, array: Any) -> None:
    """Turn by turn and key by key: a key passes if a query of the turn sees it, and is converted for these alone."""
    assert INTEGRATED.inputs.kind == "integrated"
    seen = KeysPerQuery(cached + 1, queries, 1)
    parts, total = key_read_times(array, "attention.key", slots), 0.0
    for first in range(0, queries, slots):
        turn = range(first, min(first + slots, queries))
        for key in range(cached + turn[-1] + 1):
            seeing = sum(key <= cached + query for query in turn)
            total += max(part.of(seeing) for part in parts)
    assert query_read_time(array, "attention.key", slots, seen) == pytest.approx(total, rel=1e-9)


def test_turns_of_stored_queries_pass_half_of_the_keys() -> None:
    """GPT-2, 512 queries in turns of 64 on X-Former: 8 turns pass 64, 128, ... 512 keys instead of 512 each."""
    hardware = machine("xformer_tvlsi_2023", attention__key__resident=64)
    assert hardware.attention.key.written == "left"
    turns, one = (
        stages(place(shapes("gpt2", tokens=512), each), 1)["key"].per_token * 512
        for each in (hardware, machine("xformer_tvlsi_2023", attention__key__resident=None))
    )
    assert turns / one == pytest.approx(sum(range(64, 513, 64)) / 512, rel=1e-9)
    for flow in (LayerSerial(), SequenceBlocking(block=64), LayerOverlap(block=64)):
        placement = place(shapes("gpt2", tokens=512, batch=2), hardware)
        expected = build_timeline(placement, flow).latency
        assert closed_form.latency(placement, flow) == pytest.approx(expected, rel=1e-9)


def test_turns_of_bidirectional_queries_pass_all_keys() -> None:
    times = [
        stages(place(shapes("bert-base", tokens=512), machine("xformer_tvlsi_2023", attention__key__resident=n)), 1)
        for n in (64, None)
    ]
    assert times[0]["key"].per_token == pytest.approx(8 * times[1]["key"].per_token, rel=1e-9)
