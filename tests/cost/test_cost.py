"""Costs by hand: the algebra, the components, and the energy of a layer from the library's constants."""

from __future__ import annotations

import dataclasses

import pytest

from ohmformer.array.prices.differences import converter_bits
from ohmformer.array.residual.spec import Residual
from ohmformer.cost.array_costs import mvm_cost, write_cost
from ohmformer.cost.cost import Cost
from ohmformer.cost.placement import place
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.cost.weight_programming import programming
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator, Engine
from ohmformer.mapping.planning import plan
from ohmformer.mapping.write_effort import effort
from ohmformer.mitigation.rotation_ops import operations
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.schema import replace
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul
from tests.build import array


def accelerator(name: str) -> Accelerator:
    found = load(name)
    assert isinstance(found, Accelerator)
    return found


XFORMER = accelerator("xformer_tvlsi_2023")
PROJECTION = XFORMER.projection.array  # type: ignore[union-attr]


def test_the_algebra_of_costs() -> None:
    one, other = Cost({"array": 1.0}, 2.0, 0.5), Cost({"array": 1.0, "adc": 3.0}, 1.0, 1.0)
    both = one.then(other)
    assert (both.energy, both.latency, both.interval, both.total) == ({"array": 2.0, "adc": 3.0}, 3.0, 1.0, 5.0)
    assert one.beside(other) == Cost({"array": 2.0, "adc": 3.0}, 2.0, 1.0)


def test_one_array_takes_what_its_source_says() -> None:
    cost = mvm_cost(plan(128, 128, PROJECTION), 1, "projection")
    accesses = 8 * 4  # input bits, slices
    assert cost.energy["array"] == pytest.approx(accesses * 170e-12)
    assert cost.energy["adc"] == pytest.approx(accesses * 129 * 0.8125e-12)  # 128 columns and the unit column
    assert "dac" not in cost.energy
    assert cost.interval == cost.latency == pytest.approx(100e-9)
    serial = replace(PROJECTION, "cost.timing", "bit_serial")
    slow = mvm_cost(plan(128, 128, serial), 1, "projection")
    assert (slow.interval, slow.latency) == pytest.approx((800e-9, 1000e-9))
    eight = replace(serial, "adc.columns_per_adc", 16)
    assert mvm_cost(plan(128, 128, eight), 1, "projection").interval == pytest.approx(100e-9)


def test_converters_are_paid_for_by_their_bits() -> None:
    half = replace(PROJECTION, "adc.bits", 4)
    assert priced(half, "projection").access_time == pytest.approx(50e-9)
    full, less = (mvm_cost(plan(128, 128, found), 1, "projection").energy for found in (PROJECTION, half))
    assert less["adc"] == pytest.approx(full["adc"] * (400 + 0.256) / (800 + 65.536))
    linear = replace(half, "cost.adc_law", {"kind": "linear"})
    assert mvm_cost(plan(128, 128, linear), 1, "projection").energy["adc"] == pytest.approx(full["adc"] / 2)
    ideal = accelerator("clipformer_tcad_2024").attention.array
    assert converter_bits(ideal) == 8


def test_a_write_is_reset_and_set() -> None:
    cells = plan(64, 64, PROJECTION)
    cost = write_cost(cells, "attention.key")
    assert cost.total == pytest.approx(64 * (64 * 4 + 4) * 1.38e-12)
    assert cost.interval == pytest.approx(85.7e-9)
    assert PROJECTION.cell.write_pulses == 2


def test_the_energy_of_a_layer_by_hand() -> None:
    """Encoder of BERT-base at 512 tokens, from the constants of the library files alone."""
    layer = place(shapes("bert-base", tokens=512), XFORMER).layers[1]
    energy = {stage.name: stage.energy for stage in layer.stages}
    for name, arrays, outputs in (("qkv", 432, 2304), ("output", 144, 768), ("ffn1", 576, 3072), ("ffn2", 576, 768)):
        blocks = 24 if name == "ffn2" else 6
        column_blocks = outputs // 128
        conversions = 512 * 8 * blocks * 4 * (outputs + column_blocks)
        assert energy[name]["array"] == pytest.approx(512 * 8 * arrays * 170e-12)
        assert energy[name]["adc"] == pytest.approx(conversions * 0.8125e-12)
    scores = 12 * 512 * 512
    assert energy["key"]["softmax"] == pytest.approx(scores * 1.87e-12)
    # Q is stored: 64 of 128 rows and 512 of 512 columns for each head, 8 slices; 512 keys pass, 8 bits each.
    assert energy["key"]["array"] == pytest.approx(512 * 8 * 12 * 4 * 8 * 251.46e-12)
    assert energy["key"]["adc"] == pytest.approx(512 * 8 * 12 * 8 * (512 + 4) * 0.8125e-12 * 7 / 8)
    assert energy["value"]["array"] == pytest.approx(512 * 8 * 12 * 4 * 8 * 251.46e-12)
    assert energy["write"]["write"] == pytest.approx((12 * 64 * 8 * (512 + 4) + 12 * 512 * 8 * (64 + 1)) * 0.5e-15)
    moved = 512 * (3 * 768 + 3 * 768)
    assert energy["qkv"]["network"] == pytest.approx(moved / 2 * 4.03e-12)
    sums = 2 * 512 * 2304  # of two bytes; 3 of 5 go from core to core of a tile, in and out of its memory
    assert energy["qkv"]["buffer"] == pytest.approx((moved + 2 * 3 * sums) * 0.5375e-12)
    assert energy["qkv"]["register"] == pytest.approx((moved + (5 + 3) * sums) * 0.27e-12)
    vector = 512 * 5 * 2304 * 2.185e-12  # normalized behind the layer before
    assert energy["qkv"]["vector"] == pytest.approx(vector)


def test_arrays_tiles_and_area() -> None:
    made = place(shapes("bert-base", tokens=512), XFORMER)
    assert made.arrays["projection"] == 12 * 1728
    assert made.arrays["attention.key"] == made.arrays["attention.value"] == 12 * 4 * 8
    assert made.tiles == 12 * 36 + 16
    one = 25 + 128 * 0.167 + 128 * 0.0391 + 1200 + 60
    assert priced(PROJECTION, "projection").area == pytest.approx(one * 1e-12)
    bank = 6108 + 128 * 0.167 + 128 * 0.0391 + 8 * 1200 + 60
    shell = 0.199e-6 + 8 * 0.0123e-6
    by_hand = 432 * (shell + 48 * one * 1e-12) + 16 * (shell + 48 * bank * 1e-12) + 12 * 0.0346e-6
    assert made.area == pytest.approx(by_hand)


def test_derived_figures_of_the_library_still_follow_from_the_others() -> None:
    """Whoever changes what they were derived from sees it here."""
    work = shapes("bert-base", tokens=512)
    iso, xformer = place(work, accelerator("sram_iso_area")), place(work, XFORMER)
    assert 0.99 * xformer.area < iso.area <= xformer.area
    scaled = simulate(work, accelerator("xformer_tvlsi_2023_calibrated_energy"), LayerOverlap(block=64))
    assert work.operations / scaled.energy == pytest.approx(6.72e12, rel=1e-3)
    assert simulate(work, accelerator("gtx_1060")).latency == pytest.approx(51.46e-3, rel=1e-3)
    products = ("array", "dac", "adc", "sample", "shift_add", "write", "softmax")
    stages = {stage.name: stage.energy for stage in xformer.layers[1].stages}
    energy = {name: sum(parts.get(part, 0.0) for part in products) for name, parts in stages.items()}
    assert (energy["write"] + energy["key"] + energy["value"]) / energy["qkv"] == pytest.approx(58 / 28, rel=1e-3)


def test_a_chip_that_is_too_small_says_how_many_tiles_it_needs() -> None:
    small = replace(XFORMER, "chip.tiles", 36)
    with pytest.raises(
        BadInput,
        match=r"hardware.chip.tiles = 36: the model needs 448 tiles \(20736 arrays of weights, .* 84.93 MB\)",
    ):
        place(shapes("bert-base"), small)
    large = replace(XFORMER, "chip.tiles", 500)
    assert place(shapes("bert-base"), large).tiles == 500
    assert place(shapes("bert-base"), accelerator("isaac_isca_2016")).tiles % 168 == 0


def test_every_missing_price_is_an_error() -> None:
    work = shapes("fashion-vit")
    with pytest.raises(BadInput, match=r"hardware.chip: is missing for 'Generic crossbars"):
        place(work, accelerator("generic_amplitude"))
    with pytest.raises(BadInput, match=r"attention.key.kind = 'digital': has no price"):
        place(work, replace(XFORMER, "attention.kind", "digital"))
    bare = array(rows=64)
    assert bare.cost is None
    with pytest.raises(BadInput, match=r"hardware.projection.array.cost: is missing"):
        place(work, replace(XFORMER, "projection", {"kind": "crossbar", "array": bare}))
    with pytest.raises(BadInput, match=r"attention.key.array.cell.write_energy: is missing"):
        place(work, replace(accelerator("nvm_ideal"), "attention.key.array.cell.write_energy", None))
    with pytest.raises(BadInput, match=r"hardware.chip.dram: is missing"):
        place(work, replace(replace(accelerator("sram_iso_area"), "chip.dram", None), "projection.arrays", 16))
    lanes = replace(accelerator("puma_asplos_2019"), "projection", {"kind": "simd", "ops_per_mac": 2.0})
    with pytest.raises(BadInput, match=r"projection.lanes = 'of_layer': no weights of embedding lie on arrays"):
        place(work, lanes)
    with pytest.raises(BadInput, match=r"attention.value.written = 'left': P would be written"):
        place(work, replace(XFORMER, "attention.value.written", "left"))


def test_an_sram_cell_holds_one_bit() -> None:
    with pytest.raises(BadInput, match="an SRAM cell holds one bit; set it to 1"):
        replace(XFORMER, "attention.key.array", PROJECTION)


def test_windows_of_a_sample_take_turns() -> None:
    nvm = accelerator("nvm_ideal")
    table = Transformer(title="t", kind="encoder", layers=1, width=64, heads=1, hidden=64, tokens=64)
    whole = shapes(table)
    ops = []
    for op in whole.ops:
        if isinstance(op, DynamicMatMul):
            sizes = {"outputs": 16} if op.role == "attention.key" else {"inputs": 16}
            op = dataclasses.replace(op, batch=4, queries=16, written=16, **sizes)
        ops.append(op)
    windowed = place(dataclasses.replace(whole, ops=tuple(ops)), nvm)
    once, turns = (
        {stage.name: stage.time(64) for stage in made.layers[0].stages} for made in (place(whole, nvm), windowed)
    )
    assert once["write"] == pytest.approx(64 * 85.7e-9)
    assert turns["write"] == pytest.approx(4 * 64 * 85.7e-9)
    assert turns["key"] == pytest.approx(once["key"])


def test_grouped_queries_store_less_and_take_turns() -> None:
    table = Transformer(title="t", kind="decoder", layers=1, width=256, heads=4, hidden=256, tokens=64)
    nvm = accelerator("nvm_ideal")
    full, grouped = (place(shapes(replace(table, "kv_heads", count)), nvm) for count in (4, 1))
    assert grouped.arrays["attention.key"] * 4 == full.arrays["attention.key"]
    times = [{stage.name: stage.per_token for stage in made.layers[0].stages} for made in (full, grouped)]
    assert times[1]["key"] == pytest.approx(4 * times[0]["key"])


def test_keys_and_values_in_cells_of_two_kinds_take_the_area_of_both() -> None:
    nvm, work = accelerator("nvm_ideal"), shapes("bert-base", tokens=512)
    lanes = accelerator("puma_asplos_2019").attention.key
    half = place(work, replace(nvm, "attention.key", lanes))
    assert half.arrays["attention.value"] == place(work, nvm).arrays["attention.value"]
    assert half.area == pytest.approx((place(work, nvm).area + place(work, _without(nvm, lanes)).area) / 2)
    mixed = place(work, replace(XFORMER, "attention.value", nvm.attention.value))
    arrays = {"key": XFORMER.attention.key, "value": nvm.attention.value}
    held = {role: mixed.arrays[f"attention.{role}"] for role in arrays}
    chip = XFORMER.chip
    assert chip is not None
    assert chip.softmax is not None
    weights = mixed.arrays["projection"] * priced(PROJECTION, "projection").area
    cells = sum(held[role] * priced(engine.array, role).area for role, engine in arrays.items())  # type: ignore[union-attr]
    shells = mixed.tiles * (chip.tile_area + chip.cores_per_tile * chip.core_area)
    assert sum(held.values()) == 12 * 48  # whole tiles
    assert mixed.area == pytest.approx(weights + cells + shells + 12 * chip.softmax.area_per_head)


def _without(hardware: Accelerator, lanes: Engine) -> Accelerator:
    return replace(replace(hardware, "attention.key", lanes), "attention.value", lanes)


@pytest.mark.parametrize("name", ["puma_asplos_2019", "xformer_tvlsi_2023", "nvm_ideal"])
def test_a_cache_outside_cells_comes_from_memory_at_every_step(name: str) -> None:
    """A token attends to 101: lanes, and cells that layers share, get K and V of all of them; other cells hold them."""
    hardware = accelerator(name)
    stages = {
        stage.name: stage for stage in place(shapes("gpt2", phase="decode", context=100), hardware).layers[1].stages
    }
    parts = {part.name: part for stage in stages.values() for part in stage.parts}
    tokens = 1 if name == "nvm_ideal" else 101
    moved = 768 + 12 * 101 + tokens * 768  # Q, its scores, K
    assert parts["key"].energy["buffer"] == pytest.approx(moved * 0.5375e-12)
    assert parts["value"].energy["buffer"] == pytest.approx(moved * 0.5375e-12)


def test_rotated_inputs_are_paid_for_in_the_lanes() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    plain, turned = (place(work, hardware, weights=how).energy for how in (None, WeightMitigation(rotate=True)))
    steps = sum(op.vectors * operations(op.inputs) for op in work.ops if isinstance(op, StaticMatMul))
    assert hardware.chip is not None
    lanes = hardware.chip.vector
    assert turned["vector"] - plain["vector"] == pytest.approx(steps * lanes.add * lanes.energy_per_op, rel=1e-6)
    assert {name: value for name, value in turned.items() if name != "vector"} == {
        name: value for name, value in plain.items() if name != "vector"
    }


@pytest.mark.parametrize("how", ["global", "column"])
def test_a_compensation_of_drift_is_one_multiplication_per_result_of_weights(how: str) -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    compensated = replace(hardware, "projection.array.drift_compensation", how)
    first, last = (simulate(work, each) for each in (hardware, compensated))
    results = sum(op.vectors * op.outputs for op in work.ops if isinstance(op, StaticMatMul))
    assert hardware.chip is not None
    lanes = hardware.chip.vector
    plain, more = first.placement.energy, last.placement.energy
    assert more["vector"] - plain["vector"] == pytest.approx(results * lanes.add * lanes.energy_per_op, rel=1e-6)
    assert {**more, "vector": 0} == {**plain, "vector": 0}
    assert last.latency > first.latency
    (note,) = (note for note in last.placement.notes if "drift_compensation" in note)
    assert note == (
        "drift_compensation of projection arrays: one multiplication per result is priced; the readings that give the "
        "factors are not part of a pass; cost.weight_programming.compensation_reading prices one"
    )
    assert not any("drift_compensation" in note for note in first.placement.notes)


def test_keys_and_values_have_no_compensation_of_drift() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    for path in ("attention.value.array", "array"):
        message = r"hardware.attention.(key|value).array.drift_compensation = 'global': holds .*; set it to 'none'"
        with pytest.raises(BadInput, match=message):
            place(work, replace(hardware, f"{path}.drift_compensation", "global"))
    own = replace(hardware.attention.array, "drift_compensation", "column")
    with pytest.raises(BadInput, match=r"rules: array.drift_compensation = 'column': holds keys"):
        place(work, hardware, rules={"*": Rule(array=own)})


def test_rules_say_which_inputs_are_rotated() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    whole = WeightMitigation(rotate=True)

    def vector(weights: WeightMitigation | None, **rules: Rule) -> float:
        return place(work, hardware, weights=weights, rules=rules).energy["vector"]

    assert vector(whole, **{"*": Rule(rotate=False)}) == vector(None)
    assert vector(None, **{"*": Rule(rotate=True)}) == vector(whole)
    assert vector(None) < vector(None, **{"layers.3.*": Rule(rotate=True)}) < vector(whole)


def test_exact_engines_rotate_nothing() -> None:
    work, whole = shapes("deit-small"), WeightMitigation(rotate=True)
    for name in ("sram_iso_area", "gtx_1060"):
        assert place(work, accelerator(name), weights=whole).energy == place(work, accelerator(name)).energy


def verified(writes: object, role: str = "attention") -> Accelerator:
    return replace(
        accelerator("clipformer_tcad_2024"), f"{role}.array.write_verify", {"writes": writes, "tolerance": 0.05}
    )


def test_verified_writes_are_paid_for_by_their_repetitions() -> None:
    hardware = verified(8)
    array_, plain = hardware.attention.array, accelerator("clipformer_tcad_2024").attention.array
    made, cells = effort(array_, 4), plan(64, 64, array_)
    once, often = write_cost(plan(64, 64, plain), "attention.key"), write_cost(cells, "attention.key")
    assert made.writes > 1.5
    assert often.energy["write"] == pytest.approx(once.energy["write"] * made.writes)
    assert array_.cost is not None
    # ISAAC's figures: an array of 64 x 64 and its 64 row drivers in 100 ns, a converter of 8 bits.
    one_read = (7.5e-12 / 64 + 0.39e-12) / 64 + 0.98e-15 + 1.5625e-12
    assert often.energy["verify"] == pytest.approx(cells.cells * made.reads * one_read)
    assert often.interval == pytest.approx(85.7e-9 * made.row_writes + 10e-9 * made.row_reads)
    assert 1 < made.writes < made.row_writes <= 8


def test_one_write_that_is_verified_costs_what_a_write_costs() -> None:
    work = shapes("deit-small")
    found, plain = (place(work, how) for how in (verified(1), accelerator("clipformer_tcad_2024")))
    assert found.energy == plain.energy
    assert [(w.max_writes, w.pulses) for w in found.wear] == [(w.max_writes, w.pulses) for w in plain.wear]


def test_verified_writes_wear_cells() -> None:
    found, plain = (place(shapes("deit-small"), how) for how in (verified([1, 1, 2, 6]), verified(1)))
    worn = effort(verified([1, 1, 2, 6]).attention.array, 4).worn
    assert found.wear[0].pulses == pytest.approx(2 * worn)
    lives = [lifetime(each, 1.0) for each in (found, plain)]
    assert lives[0] is not None
    assert lives[1] is not None
    assert lives[0].seconds == pytest.approx(lives[1].seconds / worn)


def test_weights_are_written_once_before_use() -> None:
    work = shapes("deit-small")
    plain, often = (programming(work, how) for how in (accelerator("clipformer_tcad_2024"), verified(8, "projection")))
    weights = sum(op.inputs * op.outputs for op in work.ops if isinstance(op, StaticMatMul))
    assert plain.energy == {"write": pytest.approx(weights * 4 * 2 * 1.38e-12)}
    assert plain.latency == pytest.approx(64 * 85.7e-9)
    made = effort(verified(8, "projection").projection.array, 4)  # type: ignore[union-attr]
    assert often.energy["write"] == pytest.approx(plain.energy["write"] * made.writes)
    assert programming(work, accelerator("gtx_1060")) == Cost()


def test_scaled_inputs_are_one_multiplication_each() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    scaled = WeightMitigation(scaling=0.5)
    plain, more = (place(work, hardware, weights=how).energy for how in (None, scaled))
    inputs = sum(op.vectors * op.inputs for op in work.ops if isinstance(op, StaticMatMul))
    assert hardware.chip is not None
    lanes = hardware.chip.vector
    assert more["vector"] - plain["vector"] == pytest.approx(inputs * lanes.add * lanes.energy_per_op, rel=1e-6)
    assert {**more, "vector": 0} == {**plain, "vector": 0}
    both = place(work, hardware, weights=WeightMitigation(scaling=0.5, rotate=True)).energy["vector"]
    turned = place(work, hardware, weights=WeightMitigation(rotate=True)).energy["vector"]
    assert both - turned == pytest.approx(more["vector"] - plain["vector"])
    assert simulate(work, hardware, weights=scaled).latency > simulate(work, hardware).latency
    by_rule = place(work, hardware, rules={"*": Rule(weights=scaled)}).energy["vector"]
    some = place(work, hardware, rules={"layers.3.*": Rule(weights=scaled)}).energy["vector"]
    assert plain["vector"] < some < by_rule == more["vector"]


def test_codes_and_ranges_of_weights_cost_nothing_in_use_and_copies_cost_arrays() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    free = WeightMitigation(scale="column", range=0.7, radix=2, residual=Residual(bits=6))
    plain, codes = place(work, hardware), place(work, hardware, weights=free)
    assert (codes.energy, codes.arrays, codes.counts) == (plain.energy, plain.arrays, plain.counts)
    twice = place(work, hardware, weights=WeightMitigation(redundancy=2))
    own = place(work, replace(hardware, "projection.array.redundancy", 2))
    assert (twice.energy, twice.arrays, twice.counts) == (own.energy, own.arrays, own.counts)
    assert sum(twice.arrays.values()) > sum(plain.arrays.values())


def test_exact_engines_scale_nothing() -> None:
    work, whole = shapes("deit-small"), WeightMitigation(scaling=0.5, radix=1, redundancy=2)
    for name in ("sram_iso_area", "gtx_1060"):
        assert place(work, accelerator(name), weights=whole).energy == place(work, accelerator(name)).energy


def test_what_arrays_of_weights_cannot_have_has_no_price() -> None:
    hardware, work = accelerator("clipformer_tcad_2024"), shapes("deit-small")
    with pytest.raises(BadInput, match=r"^weights.radix = 9: .*above 2\^bits_per_cell = 4"):
        place(work, hardware, weights=WeightMitigation(radix=9))
    with pytest.raises(BadInput, match=r"^weights.unbiased: residual writing chooses digits"):
        place(work, replace(hardware, "projection.array.residual", {}), weights=WeightMitigation(unbiased=True))
