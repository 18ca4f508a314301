"""NeuRRAM, ISAAC, PUMA, SRAM macros and gain cells: what fixed a price comes back, and what is free is met."""

from __future__ import annotations

import pytest

from ohmformer.cost.power.full_load import full_load
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.schema import replace
from ohmformer.validation.claims import check

NEURRAM = check("neurram_nature_2022").claims
CHIPS = check("chips_and_macros").claims
PARTS = ("array", "dac", "adc", "sample")


def test_one_setting_of_neurram_fixed_the_others_within_20_percent() -> None:
    """Nine further settings (bits in, bits out, phases), each with its efficiency and its rate."""
    free = [entry for entry in NEURRAM if entry.claim.role == "validation"]
    assert len(free) == 18
    assert all(entry.claim.tolerance == 0.2 and entry.verdict == "met" for entry in free)
    assert [entry.claim.id for entry in NEURRAM if entry.claim.role == "calibration"] == [
        "efficiency_in4_out6",
        "rate_in4_out6",
    ]


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_the_guessed_split_of_a_neuron_does_not_decide(share: float) -> None:
    """Between samples and conversion a neuron's 7.45 pJ may be split in any way up to 80 % of conversion."""
    hardware = load("neurram_nature_2022")
    for field, value in (("sample_energy", (1 - share) * 7.4518e-12 / 3), ("adc_energy", share * 7.4518e-12)):
        hardware = replace(hardware, f"projection.array.cost.{field}", value)
    for entry in NEURRAM:
        name = entry.claim.id.removeprefix("efficiency_in")
        if name == entry.claim.id or name.endswith("two"):
            continue
        bits_in, _, bits_out = name.partition("_out")
        other = replace(hardware, "projection.array.inputs.bits", int(bits_in))
        other = replace(other, "projection.array.adc.bits", int(bits_out))
        found = full_load(other)
        modeled = found.rate / sum(found.power.get(part, 0.0) for part in PARTS)
        assert modeled == pytest.approx(entry.reported, rel=0.2), entry.claim.id


def test_an_operation_of_neurram_is_half_a_multiplication_with_addition() -> None:
    """Word lines, neurons and pulses of 62.37 fJ per operation: of 65,536 in a core with 32,768 weights."""
    hardware = load("neurram_nature_2022")
    found = full_load(hardware)
    assert isinstance(hardware.projection, ArrayEngine)
    array = hardware.projection.array
    vectors = found.rate / (2 * array.rows * array.columns)
    energy = sum(found.power.get(part, 0.0) for part in PARTS) / vectors
    assert energy == pytest.approx(62.372e-15 * 65_536, rel=1e-3)


def test_parts_of_isaac_and_puma_are_within_10_percent() -> None:
    parts = [entry for entry in CHIPS if entry.claim.id.startswith(("isaac", "puma"))]
    missed = {entry.claim.id for entry in parts if not entry.within}
    assert all(entry.claim.tolerance == 0.1 for entry in parts)
    assert missed == {"puma_rate"}


def test_the_sram_macro_of_wang_gives_its_efficiency() -> None:
    """125.06 pJ for 64 inputs and 16 outputs: 16.376 TOPS/W."""
    hardware = load("xformer_tvlsi_2023_wang_sram")
    projection = hardware.attention.value
    found = full_load(hardware.model_copy(update={"projection": projection}))
    assert found.rate / sum(found.power.get(part, 0.0) for part in PARTS) == pytest.approx(16.376e12, rel=1e-3)


def test_gain_cells_give_their_totals() -> None:
    assert {entry.verdict for entry in check("gain_cell_leroux_2025").claims} == {"calibrated"}
