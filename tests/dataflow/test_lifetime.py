"""Lifetime: what is written how often, and what it endures."""

from __future__ import annotations

import dataclasses
import math

import pytest

from ohmformer.cost.placement import place
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import DynamicMatMul

NVM = load("nvm_ideal")
assert isinstance(NVM, Accelerator)
SHARED = replace(NVM, "attention.arrays", "shared")


def worn(hardware: Accelerator, endurance: float, pulses: int = 2) -> Accelerator:
    for path, value in (("endurance", endurance), ("write_pulses", pulses)):
        hardware = replace(hardware, f"attention.array.cell.{path}", value)
    return hardware


def test_reram_that_all_layers_share_wears_out_within_seconds() -> None:
    """12 layers in 0.98 ms are 12.2 thousand writes of each cell per second: 1e6 pulses last 82 s, one to a write."""
    made = place(shapes("bert-base", tokens=512), worn(SHARED, 1e6, pulses=1))
    found = lifetime(made, 1 / 0.98e-3)
    assert found is not None
    assert found.writes_per_second == pytest.approx(12.2e3, rel=0.01)
    assert found.seconds == pytest.approx(82, rel=0.01)
    assert (found.arrays, found.endurance, found.pulses) == ("shared", 1e6, 1)


def test_pulses_layers_spares_and_rates_count() -> None:
    work = shapes("bert-base", tokens=512)

    def seconds(hardware: Accelerator, rate: float = 100.0, **options: float) -> float:
        found = lifetime(place(work, hardware), rate, **options)  # type: ignore[arg-type]
        assert found is not None
        return found.seconds

    shared = seconds(worn(SHARED, 1e8))
    assert shared == pytest.approx(1e8 / (12 * 2 * 100))
    assert seconds(worn(NVM, 1e8)) == pytest.approx(12 * shared)
    assert seconds(worn(SHARED, 1e8, pulses=1)) == pytest.approx(2 * shared)
    assert seconds(worn(SHARED, 1e8), rate=200) == pytest.approx(shared / 2)
    assert seconds(worn(SHARED, 1e8), spare=0.5) == pytest.approx(1.5 * shared)
    roomy = replace(replace(worn(SHARED, 1e8), "attention.key.resident", 1024), "attention.value.resident", 1024)
    assert seconds(roomy) == pytest.approx(shared)
    assert seconds(roomy, leveling=True) == pytest.approx(2 * shared)


def test_a_ring_of_cached_tokens_is_written_once_per_turn() -> None:
    made = place(shapes("gpt2", phase="decode", context=99), worn(NVM, 1e8))
    found = lifetime(made, 10)
    assert found is not None
    assert found.writes_per_second == pytest.approx(10 / 100)


def test_layers_that_share_arrays_write_the_whole_cache_at_every_step() -> None:
    work = shapes("gpt2", phase="decode", context=99)
    own, shared = place(work, worn(NVM, 1e8)), place(work, worn(SHARED, 1e8))
    assert shared.counts.cell_writes > 90 * own.counts.cell_writes
    found = lifetime(shared, 10)
    assert found is not None
    assert found.writes_per_second == pytest.approx(10 * 12)


def test_each_sample_of_a_batch_has_a_cache_of_its_own() -> None:
    one, four = (place(shapes("gpt2", phase="decode", context=99, batch=n), worn(NVM, 1e8)) for n in (1, 4))
    assert four.arrays["attention.key"] == 4 * one.arrays["attention.key"]
    assert lifetime(one, 10) == lifetime(four, 10)
    encoders = [place(shapes("bert-base", batch=n), worn(NVM, 1e8)) for n in (1, 4)]
    assert encoders[0].arrays == encoders[1].arrays
    assert lifetime(encoders[0], 1).seconds == pytest.approx(4 * lifetime(encoders[1], 1).seconds)  # type: ignore[union-attr]


def test_what_is_never_written_lasts_for_ever_and_what_nobody_knows_is_not_said() -> None:
    puma = load("puma_asplos_2019")
    assert isinstance(puma, Accelerator)
    assert simulate(shapes("bert-base"), puma).lifetime() == math.inf
    unknown = replace(NVM, "attention.array.cell.endurance", None)
    assert simulate(shapes("bert-base"), unknown).lifetime(100) is None
    for changes, said in (({"rate": 0.0}, "cost.rate = 0: must be > 0"), ({"rate": 1.0, "spare": -1}, "spare = -1")):
        with pytest.raises(BadInput, match=said):
            lifetime(place(shapes("bert-base"), NVM), **changes)  # type: ignore[arg-type]


def test_by_default_one_pass_follows_another() -> None:
    run = simulate(shapes("bert-base"), worn(SHARED, 1e8), SequenceBlocking())
    assert run.lifetime() == pytest.approx(1e8 * run.latency / 24)


def test_prefill_has_the_cells_that_decoding_finds() -> None:
    """100 tokens of four samples, then one more: of one array's 128 rows both take the same."""
    prefill, decode = (
        place(shapes("gpt2", batch=4, **sizes), worn(NVM, 1e8))  # type: ignore[arg-type]
        for sizes in ({"phase": "prefill", "tokens": 100}, {"phase": "decode", "context": 99})
    )
    assert prefill.arrays == decode.arrays
    for wear in prefill.wear:
        assert (wear.max_writes, wear.mean_writes) == pytest.approx((1, 1)), "each sample writes cells of its own once"
    one = place(shapes("gpt2", phase="prefill", tokens=100), worn(NVM, 1e8))
    assert prefill.arrays["attention.key"] == 4 * one.arrays["attention.key"]


def test_an_encoder_has_cells_for_one_sample_beside_a_decoder_with_caches() -> None:
    """Of 36 attentions of T5 the encoder's 12 take turns, the decoder's own and those to the source keep cells."""
    one, four = (place(shapes("t5-base", tokens=100, phase="prefill", batch=n), worn(NVM, 1e8)) for n in (1, 4))
    each = one.arrays["attention.value"] // 36
    assert four.arrays["attention.value"] == 12 * each + 4 * 24 * each
    assert {wear.max_writes for wear in four.wear} == {4.0}, "those of the encoder are written for every sample"


def test_windows_of_a_sample_wear_the_same_cells() -> None:
    """Windows take turns in the cells of one of them, so 16 windows are 16 writes."""
    plain = shapes("bert-base", tokens=64)
    ops = tuple(dataclasses.replace(op, batch=16) if isinstance(op, DynamicMatMul) else op for op in plain.ops)
    one, many = (place(work, worn(NVM, 1e8)) for work in (plain, dataclasses.replace(plain, ops=ops)))
    assert many.arrays == one.arrays
    assert lifetime(one, 1).seconds == pytest.approx(16 * lifetime(many, 1).seconds)  # type: ignore[union-attr]
    for wear in many.wear:
        assert (wear.max_writes, wear.mean_writes) == pytest.approx((16, 16))
    assert many.counts.cell_writes == 16 * sum(wear.cells for wear in many.wear)


def test_cells_for_fewer_tokens_are_written_as_often_as_it_takes() -> None:
    few = worn(NVM, 1e8)
    for role in ("key", "value"):
        few = replace(few, f"attention.{role}.resident", 512)
    (key, value) = place(shapes("bert-base-long", tokens=700), few).wear
    assert (key.max_writes, value.max_writes) == (2, 2)
    assert value.mean_writes == pytest.approx(700 / 512)


def test_unequal_caches_take_the_cells_of_each() -> None:
    """A decoder's own cache holds 8 tokens, the source's 300: 12 layers of each, 64 columns and four slices a head."""
    made = place(shapes("t5-base", tokens=300, phase="decode", context=7), worn(NVM, 1e8))
    assert made.arrays["attention.value"] == 12 * 12 * 4 * (1 + 3)
    wear = {entry.role: entry for entry in made.wear}["attention.value"]
    assert wear.max_writes == pytest.approx(1 / 8)
    assert wear.mean_writes == pytest.approx(1 / 308)


def test_two_attentions_of_a_layer_have_a_set_each_that_layers_share() -> None:
    """As the timeline has it, where they are two units: 12 layers write each of them."""
    made = place(shapes("t5-base", tokens=300, phase="decode", context=7), worn(SHARED, 1e8))
    assert made.arrays["attention.value"] == 12 * 4 * (1 + 3)
    assert [wear.max_writes for wear in made.wear] == [12] * 4  # keys and values, the decoder's own and the source's


def test_a_rate_of_nothing_is_no_default() -> None:
    run = simulate(shapes("bert-base"), worn(SHARED, 1e8))
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BadInput, match=r"cost.rate = .*: must be > 0 and finite"):
            run.lifetime(rate=rate)
    with pytest.raises(BadInput, match=r"cost\.spare = nan"):
        run.lifetime(spare=math.nan)
