"""Notes on readings of timing, and on tiles whose prices hold for other arrays."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.cost.power.full_load import full_load
from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.simulate import simulate
from ohmformer.hardware.entries import load
from ohmformer.hardware.price_notes import machine_notes
from ohmformer.hardware.spec import Accelerator
from ohmformer.patch import Patch
from ohmformer.report.full_load import full_load_table
from ohmformer.schema import apply_patch, replace
from ohmformer.workload.shapes import shapes


def changed(hardware: Accelerator, **changes: Any) -> Accelerator:
    for path, value in changes.items():
        hardware = replace(hardware, path.replace("__", "."), value)
    return hardware


def test_a_rate_above_that_of_converters_is_never_shown_in_silence() -> None:
    hardware = load("xformer_tvlsi_2023")
    (note,) = machine_notes(hardware)
    assert note == (
        "cost.timing = 'one_access' of projection arrays: up to 8 times faster than reads and conversions allow"
    )
    found = full_load(hardware)
    assert found.notes == (note,)
    assert full_load_table(found).caption == note
    work = shapes("bert-base", tokens=64)
    assert f"note                 {note}" in str(simulate(work, hardware))
    served = serve("gpt2", load("nvm_ideal"), prompt=8, generate=2)
    assert "'one_access' of projection and attention arrays" in str(served)
    assert "of projection and attention arrays: up to 8 times faster" in served._repr_html_()


def test_a_design_of_ones_own_gets_the_note_too() -> None:
    own = load("isaac_isca_2016")
    assert machine_notes(own) == []
    own = replace(own, "attention.value.array.cost.timing", "one_access")
    assert [note[:45] for note in machine_notes(own)] == ["cost.timing = 'one_access' of attention array"]
    once = replace(own, "attention.value.array.inputs.kind", "amplitude")
    assert machine_notes(once) == [], "one access is all that amplitudes take"


def test_the_rate_of_one_access_is_that_of_all_accesses_times_the_bits() -> None:
    fast = load("xformer_tvlsi_2023")
    slow = replace(fast, "projection.array.cost.timing", "bit_serial")
    assert machine_notes(slow) == []
    assert full_load(fast).rate == pytest.approx(8 * full_load(slow).rate, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"array__size": 256}, "while there are 256 x 256 (projection, attention): see chip.priced_with"),
        ({"projection__array__rows": 64}, "while there are 64 x 128 (projection): see"),
        ({"chip__arrays_per_core": 16}, "while there are 16 arrays in a core: see"),
        ({"chip__cores_per_tile": 4}, "while there are 4 cores in a tile: see"),
    ],
)
def test_tiles_with_other_arrays_are_named(changes: dict[str, Any], words: str) -> None:
    (note,) = machine_notes(changed(load("isaac_isca_2016"), **changes))
    assert note.startswith("power and area of cores and tiles (without their arrays) are those published for arrays of")
    assert words in note


def test_prices_of_tiles_that_are_all_stated_hold_for_what_tiles_hold() -> None:
    plain = load("isaac_isca_2016")
    chip = plain.chip
    assert chip is not None
    prices = {f"chip.{name}": {"value": "1 mW" if name == "tile_power" else "1 mm^2", "kind": "assumed", "how": "own"}
              for name in ("tile_power", "core_area", "tile_area")}  # fmt: skip
    own = apply_patch(plain, Patch.of({"array.size": 256, **prices}), {"file": True})
    assert machine_notes(own) == []
    one = apply_patch(
        plain, Patch.of({"array.size": 256, "chip.tile_power": prices["chip.tile_power"]}), {"file": True}
    )
    assert len(machine_notes(one)) == 1


def test_a_machine_without_arrays_has_no_notes() -> None:
    assert machine_notes(load("a100_sxm_40gb")) == []
    assert machine_notes(load("generic_amplitude")) == []


def test_calibrations_of_converters_are_not_priced_and_named() -> None:
    plain = load("isaac_isca_2016")
    own = apply_patch(plain, Patch.of({"array.peripherals.calibration": {"reads": 16}}), {"file": False})
    words = (
        "peripherals.calibration of projection and attention arrays: its conversions, once for a chip, are not priced"
    )
    assert [note for note in machine_notes(own) if "calibration" in note] == [words]
    assert not [note for note in machine_notes(plain) if "calibration" in note]


def test_losses_in_wires_are_not_priced_and_named() -> None:
    plain = load("isaac_isca_2016")
    own = changed(plain, array__encoding="differential", projection__array__wires={"row": 1.0, "column": 1.0})
    words = "wires of projection arrays: prices are those without the voltage that wires lose"
    assert [note for note in machine_notes(own) if note.startswith("wires")] == [words]
    assert not [note for note in machine_notes(plain) if note.startswith("wires")]


@pytest.mark.parametrize("size", [16, 32, 128, 256, 512])
def test_sizes_beyond_the_tables_of_a_law_are_named(size: int) -> None:
    """PUMA's simulator has tables from 32 x 32 to 256 x 256; wires have no such limit."""
    puma = load("puma_asplos_2019")
    tables = changed(puma, projection__array__cost__law={"kind": "puma_tables"}, projection__array__size=size)
    found = [note for note in machine_notes(tables) if "extrapolated" in note]
    beyond = f"its source covers 32 to 256 rows and columns, and {size} x {size} is extrapolated"
    assert [note.split(": ")[1] for note in found] == ([] if 32 <= size <= 256 else [beyond])
    assert found == [note for note in simulate(shapes("bert-base", tokens=8), tables).notes if "extrapolated" in note]
    wires = changed(puma, projection__array__size=size)
    assert not [note for note in machine_notes(wires) if "extrapolated" in note]
