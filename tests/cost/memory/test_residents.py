"""What lives in the memories of tiles and off the chip, what moving it costs, and what is refused: all by hand."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest

import ohmformer as of
from ohmformer.cost.memory.homes import KV, LOADED, TABLES, WEIGHTS
from ohmformer.cost.placement import Placement, place
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.study.cost import NO_USE_OF_DRAM, make_costs, study_costs
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import Workload

PUMA = load(Accelerator, "puma_asplos_2019")
ISAAC = load(Accelerator, "isaac_isca_2016")
NVM = load(Accelerator, "nvm_ideal")
XFORMER = load(Accelerator, "xformer_tvlsi_2023")
SRAM = load(Accelerator, "sram_iso_area")
GDDR = {"bandwidth": 192e9, "energy": 112e-12}
LLAMA_2_WEIGHTS = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000
LANES = {"kind": "simd", "ops_per_mac": 2.0, "lanes": 1024}


def chip(hardware: Accelerator, **fields: Any) -> Accelerator:
    for name, value in fields.items():
        hardware = replace(hardware, f"chip.{name}", value)
    return hardware


def on_lanes(engine: dict[str, Any] = LANES, **fields: Any) -> Accelerator:
    hardware = chip(PUMA, **fields)
    for role in ("projection", "attention.key", "attention.value"):
        hardware = replace(hardware, role, engine)
    return hardware


def llama(context: int = 1000, **lengths: Any) -> Workload:
    return shapes("llama-2-7b", phase="decode", context=context, **lengths)


def dram(run: Run | Placement) -> float:
    placed = run.placement if isinstance(run, Run) else run
    return placed.energy.get("dram", 0.0)


def test_lanes_read_their_weights_from_the_memory_off_the_chip() -> None:
    """6.6 GB of Llama-2-7B for one token: 740 mJ and 34 ms at the figures of GDDR5, and a cache of 262 MB."""
    run = simulate(llama(), on_lanes(dram=GDDR))
    kv, table = 2 * 32 * 1001 * 4096, 4096
    on_chip = 32 * 65536  # memories of the 32 tiles that have the lanes, filled with keys and values
    written = 2 * 32 * 4096
    moved = LLAMA_2_WEIGHTS + table + (kv + written) * (kv - on_chip) / kv
    assert run.placement.tiles == 32
    assert run.placement.homes.on_chip == {KV: on_chip}
    assert run.placement.homes.off_chip == {KV: kv - on_chip, WEIGHTS: LLAMA_2_WEIGHTS, TABLES: 4096 * 32000}
    assert dram(run) == pytest.approx(moved * 112e-12, rel=1e-12)
    assert run.latency == pytest.approx(moved / 192e9, rel=0.01)
    assert run.latency > moved / 192e9


def test_weights_in_memories_of_tiles_take_their_bandwidth() -> None:
    slow = simulate(llama(), on_lanes(buffer_capacity=1e9, buffer_bandwidth=1e9))
    fast = simulate(llama(), on_lanes(buffer_capacity=1e9, buffer_bandwidth=1e12))
    read = LLAMA_2_WEIGHTS + 2 * 32 * 1001 * 4096
    assert slow.latency == pytest.approx(read / (32 * 1e9), rel=1e-3)
    assert fast.latency < slow.latency / 10
    assert dram(slow) == 0
    bare = on_lanes(buffer_capacity=1e9).chip
    assert bare is not None
    moved_twice = simulate(llama(batch=2), on_lanes(buffer_capacity=1e9)).placement.energy["buffer"]
    once = fast.placement.energy["buffer"]
    per_sample = (moved_twice - once) / 0.5375e-12
    assert once / 0.5375e-12 == pytest.approx(LLAMA_2_WEIGHTS + per_sample, rel=1e-9), "weights once for all samples"


def test_wider_values_are_more_bytes() -> None:
    narrow, wide = (place(llama(), on_lanes({**LANES, "bits": bits}, dram=GDDR)) for bits in (8, 16))
    assert wide.homes.off_chip[WEIGHTS] == 2 * narrow.homes.off_chip[WEIGHTS] == 2 * LLAMA_2_WEIGHTS
    assert dram(wide) / dram(narrow) == pytest.approx(2, rel=0.01)
    own = replace(replace(ISAAC, "attention.key", {**LANES, "bits": 4}), "attention.value", LANES)
    found = place(shapes("gpt2", tokens=32), own).homes.on_chip[KV]
    assert found == 12 * 32 * 768 * (0.5 + 2), "K of 4 bits; V as wide as the inputs of the projections"


def test_look_ups_have_the_width_of_the_values() -> None:
    """GPT-2 on ISAAC: a token of 768 values of 16 bits is 1,536 bytes."""
    placed = place(shapes("gpt2", tokens=1), ISAAC)
    assert ISAAC.chip is not None
    embedding = placed.layers[0].stages[0]
    assert embedding.name == "embedding"
    assert embedding.energy["network"] == pytest.approx(1536 * 5.47e-12, rel=1e-12)
    off_chip = place(shapes("gpt2", tokens=1), chip(ISAAC, dram=GDDR))
    assert dram(off_chip) == pytest.approx(1536 * 112e-12, rel=1e-12)
    assert off_chip.homes.off_chip == {TABLES: 50257 * 768 * 2}


@pytest.mark.parametrize("hardware", [NVM, XFORMER, ISAAC, PUMA])
def test_the_memory_off_the_chip_decides_time_and_energy_of_look_ups(hardware: Accelerator) -> None:
    work = shapes("bert-base")
    without, usual, slow, dear = (
        simulate(work, chip(hardware, dram=memory))
        for memory in (None, GDDR, {**GDDR, "bandwidth": 1e6}, {**GDDR, "energy": 1e-6})
    )
    size = 512 * 768 * hardware.value_bytes
    assert slow.latency - without.latency == pytest.approx(size / 1e6, rel=0.01)
    assert dram(dear) == pytest.approx(size * 1e-6)
    assert without.latency <= usual.latency < slow.latency
    assert without.placement.homes.off_chip == {}


def test_loaded_weights_and_tables_share_the_capacity() -> None:
    work = shapes("bert-base")
    needed = sum(place(work, SRAM).homes.off_chip.values())
    assert place(work, SRAM).homes.off_chip == {TABLES: 30522 * 768, LOADED: 12 * 7_077_888}
    assert place(work, replace(SRAM, "chip.dram.capacity", needed)).energy == place(work, SRAM).energy
    with pytest.raises(BadInput, match=r"hardware.chip.dram.capacity = 108.4 MB: 'BERT-base' .* loaded weights 84.93"):
        place(work, replace(SRAM, "chip.dram.capacity", needed - 1))


def test_caches_in_shared_arrays_are_kept_in_memory() -> None:
    """X-Former rewrites its arrays for every layer, so a decoder keeps K and V of all layers in memory."""
    work = shapes("gpt2", phase="decode", context=511, batch=2)
    kept = 2 * 12 * 2 * 512 * 768
    assert place(work, XFORMER).homes.on_chip == {KV: kept}
    assert place(shapes("bert-base"), XFORMER).homes.on_chip == {}, "an encoder writes what it has just computed"
    small = chip(XFORMER, buffer_capacity=None, dram=GDDR)
    placed = place(work, small)
    assert placed.homes.off_chip[KV] == kept
    written = 2 * 12 * 2 * 768
    assert dram(placed) == pytest.approx((kept + written + 2 * 768) * 112e-12, rel=1e-12)
    with pytest.raises(BadInput, match=r"hardware.chip.dram: is missing, .* of unknown capacity have no room"):
        place(work, chip(XFORMER, buffer_capacity=None))
    assert place(work, NVM).homes.on_chip == {}, "arrays of each layer hold it"


def test_every_byte_that_finds_no_room_adds_its_price_without_a_jump() -> None:
    work, last = shapes("gpt2", phase="decode", context=511), None
    for capacity in (65536, 30000, 10000, 3000, 1000, 1, None):
        found = place(work, chip(PUMA, buffer_capacity=capacity, dram=GDDR))
        energy = dram(found)
        assert last is None or energy >= last
        last = energy
    all_off = 12 * 2 * 768 * (512 + 1) + 768
    assert last == pytest.approx(all_off * 112e-12, rel=1e-12)


def test_spilled_tokens_are_read_for_every_use() -> None:
    hardware = NVM
    for role in ("key", "value"):
        hardware = replace(replace(hardware, f"attention.{role}.resident", 64), f"attention.{role}.overflow", "spill")
    work = shapes("gpt2", phase="decode", context=511)
    rewritten = replace(replace(hardware, "attention.key.overflow", "rewrite"), "attention.value.overflow", "rewrite")
    spilled, again, all_cells = (place(work, one) for one in (hardware, rewritten, NVM))
    assert spilled.counts.cell_writes == all_cells.counts.cell_writes
    assert again.counts.cell_writes == 512 * all_cells.counts.cell_writes
    assert spilled.counts.adc_conversions < all_cells.counts.adc_conversions
    macs = 12 * 2 * 448 * 768
    # 64 rows fill one block of rows; all 512 would take the sums of four
    sums = 12 * 768 * (1 - 3)
    lanes = spilled.energy["vector"] - all_cells.energy["vector"]
    assert lanes == pytest.approx((2 * macs + sums) * 2.185e-12, rel=1e-9)
    assert spilled.homes.on_chip == {KV: 12 * 2 * 512 * 768}
    off = place(work, chip(hardware, buffer_capacity=None, dram=GDDR))
    moved = 12 * 2 * 768 * (448 + 1 + 1) + 768  # spilled tokens, the new one to its cells and to memory; the look-up
    assert dram(off) == pytest.approx(moved * 112e-12, rel=1e-12)
    assert [round(one.max_writes * 64) for one in spilled.wear] == [1, 1]


@of.register
class Macro(of.ExactEngine):
    """A near-memory engine with a price of its own."""

    kind: Literal["test_macro_with_memory"] = "test_macro_with_memory"
    cost_fields: ClassVar[tuple[str, ...]] = ()

    def price(self, work: of.Work) -> of.Price:
        return of.Price(work.macs * 1e-15, {"macro": work.macs * 1e-13, "weights": work.weights * 1e-15})


def test_an_engine_with_a_price_moves_its_weights() -> None:
    macro = {"kind": "test_macro_with_memory"}
    with pytest.raises(BadInput, match=r"there are no tiles with memories for what no cell .* weights 6.607 GB"):
        place(llama(), on_lanes(macro))
    run = simulate(llama(), on_lanes(macro, dram=GDDR))
    assert run.placement.tiles == 0
    assert run.placement.energy["weights"] == pytest.approx(LLAMA_2_WEIGHTS * 1e-15)
    kv = 2 * 32 * 4096 * 1002
    assert dram(run) == pytest.approx((LLAMA_2_WEIGHTS + kv + 4096) * 112e-12, rel=1e-12)
    assert run.latency == pytest.approx((LLAMA_2_WEIGHTS + kv + 4096) / 192e9, rel=0.01)


def test_a_gpu_beside_arrays_lends_its_memory() -> None:
    gpu = load(Accelerator, "a100_sxm_40gb").projection
    work = shapes("gpt2", phase="decode", context=511, batch=64)
    mixed = chip(replace(XFORMER, "projection", gpu), buffer_capacity=None)
    placed = place(work, mixed)
    assert placed.homes.off_chip == {KV: 64 * 12 * 2 * 512 * 768 * 2}
    assert placed.homes.memory is not None
    assert placed.homes.memory.energy == pytest.approx(31.4e-12)
    weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 50257 * 768
    tight = replace(mixed, "projection.memory", 2.0 * weights + 1e8)
    with pytest.raises(BadInput, match=r"hardware.projection.memory: has 93.47 MB left: .*\(keys and values 1.208 GB"):
        place(work, tight)


@pytest.mark.parametrize("flow", [LayerSerial(), SequenceBlocking(block=16), LayerOverlap(block=16)])
def test_stages_take_turns_with_one_memory_in_all_schedulers(flow: Any) -> None:
    for hardware in (chip(PUMA, buffer_capacity=None, dram=GDDR), on_lanes(dram=GDDR), chip(SRAM, buffer_capacity=64)):
        for work in (shapes("gpt2", tokens=40, batch=3), shapes("gpt2", phase="decode", context=99, batch=3)):
            run, found = simulate(work, hardware, flow), explore([(work, hardware, flow)])
            assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
            assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
            busy = run.timeline.busy.get("memory", 0.0)
            assert busy <= run.latency * (1 + 1e-9)
            assert sum(run.timeline.critical_stages().values()) == pytest.approx(run.latency, rel=1e-9)
            least = dram(run) / GDDR["energy"] / GDDR["bandwidth"]
            assert run.latency >= least * (1 - 1e-9), "all bytes pass one memory"


def test_an_encoder_needs_room_for_one_layer_if_the_capacity_is_known() -> None:
    """Its keys and values are activations, which need no room in a memory of unknown capacity."""
    work = shapes("bert-base", tokens=100, batch=4)
    assert place(work, PUMA).homes.on_chip == {KV: 2 * 100 * 768}
    unknown = chip(PUMA, buffer_capacity=None)
    assert place(work, unknown).homes.on_chip == place(work, unknown).homes.off_chip == {}
    assert place(work, unknown).energy == place(work, PUMA).energy
    with pytest.raises(BadInput, match=r"memories of tiles of 100 B have no room .* keys and values 153.6 kB"):
        place(work, chip(PUMA, buffer_capacity=100.0))
    placed = place(work, chip(PUMA, buffer_capacity=100.0, dram=GDDR))
    share = 1 - 100 * placed.tiles / (2 * 100 * 768)
    moved = 2 * 12 * 2 * 400 * 768 * share + 400 * 768  # written and read; the look-ups
    assert dram(placed) == pytest.approx(moved * 112e-12, rel=1e-12)


def test_weights_that_a_rule_puts_into_lanes_need_a_memory() -> None:
    work, rules = shapes("bert-base", tokens=16), {"layers.0.mlp.up": "attention.key"}
    hardware = replace(PUMA, "attention.key", LANES)
    placed = place(work, hardware, rules=rules)
    assert placed.homes.on_chip[WEIGHTS] == 768 * 3072
    with pytest.raises(BadInput, match=r"hardware.chip.dram: is missing, .* weights 2.359 MB"):
        place(work, chip(hardware, buffer_capacity=None), rules=rules)
    off = place(work, chip(hardware, buffer_capacity=None, dram=GDDR), rules=rules)
    assert off.homes.off_chip[WEIGHTS] == 768 * 3072


WIDE = {"chip.network_max_load": 1000, "chip.buffer_bandwidth": "1000 TB/s"}
"""Links that are never overloaded, so that no note speaks of them."""


def test_a_note_says_if_nothing_uses_the_memory_off_the_chip() -> None:
    table = {"bandwidth": "1 GB/s", "energy": "1 pJ/B"}
    document = {
        "name": "x",
        "hardware": {"base": "nvm_ideal", "chip.dram": table, **WIDE},
        "dataflow": {"kind": "layer_serial"},
    }
    notes = {
        model: study_costs(make_costs({**document, "model": {"source": f"shapes:{model}"}})).notes
        for model in ("vit-base", "bert-base")
    }
    assert notes["vit-base"] == (NO_USE_OF_DRAM, *notes["bert-base"])
    assert NO_USE_OF_DRAM not in notes["bert-base"]


def test_samples_one_by_one_read_and_load_weights_anew() -> None:
    work, one = shapes("bert-base", tokens=32, batch=4), shapes("bert-base", tokens=32)
    for hardware in (on_lanes(dram=GDDR), SRAM):
        for flow in (LayerSerial(batching="serial"), SequenceBlocking(block=8, batching="serial")):
            run, alone = simulate(work, hardware, flow), simulate(one, hardware, flow)
            assert dram(run) == pytest.approx(4 * dram(alone), rel=1e-12)
            assert run.latency == pytest.approx(4 * alone.latency, rel=1e-9)
            assert explore([(work, hardware, flow)]).latency[0] == pytest.approx(run.latency, rel=1e-9)
            assert run.placement.counts.cell_writes == 4 * alone.placement.counts.cell_writes
        assert dram(simulate(work, hardware)) < 1.1 * dram(alone)


def test_more_of_everything_costs_more() -> None:
    hardware = on_lanes(dram=GDDR)
    for works in (
        [llama(context) for context in (10, 100, 1000, 4000)],
        [llama(batch=batch) for batch in (1, 2, 8)],
        [shapes("bert-base", tokens=tokens) for tokens in (16, 64, 512)],
    ):
        found = explore([(work, hardware, LayerSerial()) for work in works])
        assert list(found.energy) == sorted(found.energy)
        assert list(found.latency) == sorted(found.latency)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"buffer_capacity": 0.0}, r"chip.buffer_capacity = 0.0: must be > 0"),
    ({"buffer_bandwidth": 0.0}, r"chip.buffer_bandwidth = 0.0: must be > 0"),
    ({"dram": {**GDDR, "capacity": 0.0}}, r"capacity = 0.0: must be > 0"),
    ({"dram": {"bandwidth": 1e9}}, r"dram.energy"),
    ({"buffer_bandwidth": None, "buffer_capacity": 1e9}, r"hardware.chip.buffer_bandwidth: is missing, but memories"),
    ({}, r"32 memories of tiles of 65.54 kB have no room .* keys and values 262.4 MB, weights 6.607 GB; add chip.dram"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_bad_memories_are_refused_in_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        place(llama(), on_lanes(**fields))
    assert "\n" not in str(caught.value)
