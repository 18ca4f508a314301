"""Tokens of K and V that stay digital: counts, energy and memory by hand, and agreement of all ways to compute time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, PerQueryCost
from ohmformer.cost.attention.token_places import slots_of, tokens_read_digitally, tokens_written
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import DynamicMatMul, Phase, Workload
from tests.cost.test_kv_conditioning import CAUSAL, CLIPFORMER, IDEAL, TABLE

FIRST, LAST = Conditioning(first_tokens=4), Conditioning(last_tokens=4)
BOTH = Conditioning(first_tokens=2, last_tokens=4, scale="token")
EVERY = Conditioning(first_tokens=100)
LAYERS, KV_HEADS, HEADS, WIDTH, TOKENS = 2, 2, 4, 16, 24
CELLS = 4 * 2
"""Slices and polarities of a value of CLIPFORMER."""


def work(phase: Phase = "prefill", table: Transformer = CAUSAL, **how: Any) -> Workload:
    context = {"context": TOKENS - 1} if phase == "decode" else {}
    return shapes(table, phase=phase, **context, **how)


@pytest.mark.parametrize(("kv", "prefill", "reads"), [(FIRST, 20, 20 * 21 // 2), (LAST, 20, 210), (BOTH, 18, 171)])
def test_writes_and_reads_by_hand(kv: Conditioning, prefill: int, reads: int) -> None:
    """A pass writes what leaves the window. Query n, which sees n keys, reads the n - 4 (or n - 6) of them in cells."""
    one_token = LAYERS * 2 * KV_HEADS * WIDTH * CELLS
    plain = simulate(work(), CLIPFORMER).placement.counts
    counts = simulate(work(), CLIPFORMER, kv=kv).placement.counts
    assert counts.cell_writes == prefill * one_token
    fewer = TOKENS * (TOKENS + 1) // 2 - reads
    key_reads = LAYERS * HEADS * WIDTH * CELLS * CLIPFORMER.attention.key.array.cycles()  # type: ignore[union-attr]
    assert plain.cell_reads - counts.cell_reads == 2 * fewer * key_reads
    assert simulate(work("decode"), CLIPFORMER, kv=kv).placement.counts.cell_writes == one_token


@pytest.mark.parametrize("kv", [FIRST, LAST])
def test_lanes_multiply_by_digital_tokens(kv: Conditioning) -> None:
    """In a step: 2 products of 4 heads with 4 tokens of 16 values, and one sum per result of V."""
    chip = CLIPFORMER.chip
    assert chip is not None
    step = work("decode")
    before, after = (simulate(step, CLIPFORMER, kv=each).energy_by("component") for each in (None, kv))
    operations = LAYERS * HEADS * WIDTH * (2 * 2 * 4 + 1) * chip.vector.add
    assert after["vector"] - before["vector"] == pytest.approx(operations * chip.vector.energy_per_op, rel=1e-9)
    for energy in ("adc", "read"):
        assert after.get(energy, 0.0) <= before.get(energy, 0.0)


def test_memory_keeps_the_digital_tokens() -> None:
    size = CLIPFORMER.value_bytes
    kept = simulate(work("decode"), CLIPFORMER, kv=BOTH).timeline.peak_buffer()["kept_on_chip"]
    assert kept == LAYERS * 2 * KV_HEADS * WIDTH * 6 * size
    many = Conditioning(first_tokens=100, last_tokens=1)
    assert simulate(work("decode"), CLIPFORMER, kv=many).timeline.peak_buffer()["kept_on_chip"] == kept / 6 * TOKENS
    assert simulate(work("decode"), CLIPFORMER, kv=BOTH).placement.digital_token_share == 6 / TOKENS
    assert simulate(work("decode"), CLIPFORMER).placement.digital_token_share is None
    batch = simulate(work("decode", batch=3), CLIPFORMER, kv=BOTH).timeline.peak_buffer()["kept_on_chip"]
    assert batch == 3 * kept


def test_where_no_memory_has_room_the_remedy_is_named() -> None:
    small = of.replace(CLIPFORMER, "chip.buffer_capacity", None)
    with pytest.raises(BadInput, match=r"chip.dram: is missing.*keys and values.*add chip.dram"):
        simulate(work("decode"), small, kv=FIRST)
    simulate(work("decode"), small)


def test_all_digital_needs_no_writes_and_no_reads_of_keys() -> None:
    every = simulate(work("decode"), CLIPFORMER, kv=Conditioning(first_tokens=30)).placement
    assert every.counts.cell_writes == 0
    products = [stage for stage in every.layers[0].stages if stage.name.split("+")[0] in ("key", "value")]
    assert products
    assert all(stage.counts.cell_reads == 0 for stage in products)


@pytest.mark.parametrize("kv", [FIRST, BOTH, Conditioning(first_tokens=30, last_tokens=30)])
@pytest.mark.parametrize("hardware", [CLIPFORMER, IDEAL])
def test_closed_form_and_events_agree(hardware: Accelerator, kv: Conditioning) -> None:
    works = [work(), work("decode"), work(batch=2)]
    flows = [LayerSerial(), SequenceBlocking(block=7), SequenceBlocking(block=7, dependencies="published")]
    points = [DesignPoint(each, hardware, flow) for each in works for flow in flows]
    found, runs = explore(points, kv=kv), [simulate(*point, kv=kv) for point in points]
    assert found.latency == pytest.approx([run.latency for run in runs], rel=1e-9)
    assert found.energy == pytest.approx([run.energy for run in runs], rel=1e-9)


def test_an_encoder_keeps_its_first_tokens() -> None:
    kv = Conditioning(first_tokens=1)
    before, after = (simulate(shapes(TABLE), IDEAL, kv=each).placement.counts for each in (None, kv))
    assert 0 < after.cell_writes < before.cell_writes
    assert after.cell_reads < before.cell_reads
    with pytest.raises(BadInput, match=r"kv.last_tokens = 4: layers.0.attention.scores is not causal"):
        simulate(shapes(TABLE), IDEAL, kv=LAST)
    left = of.replace(IDEAL, "attention.key.written", "left")
    with pytest.raises(BadInput, match=r"kv.first_tokens = 4: the cells of layers.0.attention.scores hold queries"):
        simulate(shapes(TABLE), left, kv=FIRST)


@pytest.mark.parametrize("prompt", [3, 16])
def test_served_requests(prompt: int) -> None:
    """A request writes each token that is not digital at its end once, also if its prompt is all digital."""
    served = {
        kv: serve(CAUSAL, CLIPFORMER, prompt=prompt, generate=12, kv=kv) for kv in (None, FIRST, LAST, BOTH, EVERY)
    }
    ways = 2 * LAYERS * KV_HEADS * WIDTH * CELLS
    for kv, found in served.items():
        digital = 0 if kv is None else kv.most_digital_tokens
        steps = [simulate(shapes(CAUSAL, phase="decode", context=prompt + i), CLIPFORMER, kv=kv) for i in range(11)]
        assert found.step_latency == pytest.approx([step.latency for step in steps], rel=1e-9), kv
        written = sum(mean * entry.cells for entry, _, mean in found.writes)
        assert written == pytest.approx(ways * max(0, prompt + 11 - digital)), kv
    assert served[FIRST].energy < served[None].energy * 1.05
    most = {kv: max(most for _, most, _ in found.writes) for kv, found in served.items()}
    assert most[EVERY] == 0
    assert most[FIRST] <= most[None]


@given(
    first=st.integers(0, 30), queries=st.integers(1, 30), step=st.integers(0, 1), size=st.integers(1, 9),
    most=st.one_of(st.just(float("inf")), st.integers(0, 40)), skipped=st.integers(0, 30),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_sums_over_keys_are_those_of_each_query(
    first: int, queries: int, step: int, size: int, most: float, skipped: int
) -> None:
    quantity = PerQueryCost(0.5, (KeyTerm(2.0, size, most),)).beyond(skipped)
    seen = KeysPerQuery(first, queries, step)
    keys = [first + step * i for i in range(queries)]
    assert quantity.total(seen) == pytest.approx(sum(quantity.of(n) for n in keys))
    assert quantity.at(np.array([keys], dtype=float)).sum() == pytest.approx(quantity.total(seen))
    assert all(quantity.of(n) >= 0.5 for n in keys)


@given(tokens=st.integers(1, 40), new=st.integers(1, 40), first=st.integers(0, 20), last=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_passes_write_every_token_once(tokens: int, new: int, first: int, last: int) -> None:
    """What passes of `new` tokens write adds up to all tokens that are not digital at the end."""
    kv, engine = Conditioning(first_tokens=first, last_tokens=last), CLIPFORMER.attention.key
    assert isinstance(engine, ArrayEngine)
    written = end = 0
    while end < tokens:
        count = min(new, tokens - end)
        end += count
        op = DynamicMatMul("x", "x", 0, "attention.key", 1, 4, 2, count, 8, end, count, causal=True)
        written += tokens_written(op, engine, kv.most_digital_tokens, shared=False)
        assert 1 <= slots_of(op, engine, kv.most_digital_tokens) <= end
        assert min(end, first + min(last, 1)) <= tokens_read_digitally(op, kv) <= end
    assert written == max(0, tokens - first - last)
