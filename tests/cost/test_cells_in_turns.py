"""More tokens than cells: turns, their time and wear, and a cache that every step writes again, all by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.cost.placement import Placement, place
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import Workload

NVM = load(Accelerator, "nvm_ideal")
SRAM = load(Accelerator, "xformer_tvlsi_2023")


def cells_for(tokens: int | None, hardware: Accelerator = NVM, **fields: Any) -> Accelerator:
    for role in ("key", "value"):
        hardware = replace(hardware, f"attention.{role}.resident", tokens)
        for name, value in fields.items():
            hardware = replace(hardware, f"attention.{role}.{name}", value)
    return hardware


def write_of(placed: Placement) -> Any:
    return next(stage for stage in placed.stages() if stage.name == "write")


def llama(context: int = 4096, **lengths: Any) -> Workload:
    return shapes("llama-3-8b", phase="decode", context=context, **lengths)


def test_keys_in_turns_take_all_rows_in_every_turn() -> None:
    """Heads of 128 values, 1,024 tokens, cells for 64: 16 turns of 128 rows; V takes 64 rows in each."""
    placed = place(shapes("llama-3-8b", tokens=1024), cells_for(64))
    row = NVM.attention.key.array.cell.write_time  # type: ignore[attr-defined]
    assert write_of(placed).time(1024) == pytest.approx(16 * 128 * row, rel=1e-12)
    assert write_of(placed).time(64) == write_of(placed).time(1) == pytest.approx(128 * row, rel=1e-12)
    assert write_of(placed).time(65) == pytest.approx(2 * 128 * row, rel=1e-12)


def test_a_cache_beyond_its_cells_is_written_again_at_every_step() -> None:
    few, all_cells = place(llama(), cells_for(64)), place(llama(), cells_for(None))
    ratio = few.counts.cell_writes / all_cells.counts.cell_writes
    assert ratio == pytest.approx(4097, rel=1e-12)
    assert few.energy["write"] / all_cells.energy["write"] == pytest.approx(4097, rel=1e-12)
    row = NVM.attention.key.array.cell.write_time  # type: ignore[attr-defined]
    assert write_of(few).time(1) == pytest.approx(65 * 128 * row, rel=1e-12)
    assert write_of(all_cells).time(1) == pytest.approx(128 * row, rel=1e-12)
    for one, other in zip(few.wear, all_cells.wear, strict=True):
        assert one.max_writes == pytest.approx(4097 / 64)
        assert other.max_writes == pytest.approx(1 / 4097)


def test_a_cache_that_just_fits_is_written_once() -> None:
    fits, over = place(llama(), cells_for(4097)), place(llama(), cells_for(4096))
    assert fits.counts.cell_writes * 4097 == over.counts.cell_writes
    assert fits.energy == place(llama(), cells_for(None)).energy


def test_a_chunk_of_a_prompt_writes_the_tokens_before_it_again() -> None:
    chunk = shapes("gpt2", tokens=16, context=500, phase="prefill")
    few, all_cells = place(chunk, cells_for(100)), place(chunk, cells_for(None))
    assert few.counts.cell_writes * 16 == all_cells.counts.cell_writes * 516
    row = NVM.attention.key.array.cell.write_time  # type: ignore[attr-defined]
    assert write_of(few).time(16) == pytest.approx(516 * row, rel=1e-12)  # V: a row each; K: 6 turns of 64 rows


def test_cross_attention_writes_the_source_again() -> None:
    step = shapes("t5-base", tokens=128, phase="decode", context=3)
    few, all_cells = place(step, cells_for(64)), place(step, cells_for(None))
    assert few.counts.cell_writes == all_cells.counts.cell_writes * (128 + 1)


@pytest.mark.parametrize("machine", [NVM, SRAM])
def test_fewer_cells_never_make_anything_better(machine: Accelerator) -> None:
    for work in (llama(300), shapes("bert-base", tokens=300), shapes("gpt2", tokens=300, batch=2)):
        last: tuple[float, float] | None = None
        for count in (None, 301, 256, 100, 64, 7):
            run = simulate(work, cells_for(count, machine))
            found = run.latency, run.energy
            assert last is None or all(now >= before * (1 - 1e-12) for now, before in zip(found, last, strict=True))
            last = found


@pytest.mark.parametrize("flow", [LayerSerial(), SequenceBlocking(block=96), LayerOverlap(block=40)])
def test_turns_are_alike_in_all_schedulers(flow: Any) -> None:
    for work in (shapes("bert-base", tokens=300, batch=2), shapes("gpt2", tokens=200)):
        for machine in (NVM, SRAM):
            hardware = cells_for(64, machine)
            run = simulate(work, hardware, flow)
            assert latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
            assert explore([(work, hardware, flow)]).latency[0] == pytest.approx(run.latency, rel=1e-9)


def test_refused_if_the_engine_says_so() -> None:
    place(llama(63), cells_for(64, overflow="refuse"))
    with pytest.raises(BadInput, match=r"hardware.attention.key.resident = 64: .* 65 tokens, and overflow") as caught:
        place(llama(64), cells_for(64, overflow="refuse"))
    assert "\n" not in str(caught.value)


def test_an_engine_that_stores_queries_has_nothing_to_spill() -> None:
    with pytest.raises(BadInput, match=r"overflow = 'spill': an engine that stores Q or P keeps no cache"):
        replace(SRAM, "attention.key.overflow", "spill")
