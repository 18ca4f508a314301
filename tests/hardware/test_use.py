"""An accelerator after hours of use: which ages and writes its arrays get, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import ohmformer as of
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.use import check_rules, check_used, idle_notes, used, wearing

WEAR: dict[str, Any] = {"kind": "weibull", "stuck_at_g_max": 0.5}
NEW = of.load("clipformer_tcad_2024")
WORN = of.replace(NEW, "attention.value.array.cell.wear", WEAR)


def test_weights_get_older_and_the_cells_that_wear_are_written() -> None:
    assert used(WORN, 0.0, {}) is WORN
    old = used(WORN, 10.0, {"attention.value": 7e5, "attention.key": 9e5})
    assert old.projection.array.age == 36000.0
    assert (old.attention.value.array.writes, old.attention.key.array.writes) == (7e5, 0.0), "cells of K have no wear"
    later = used(of.replace(of.replace(WORN, "projection.array.age", 20.0), "attention.value.array.writes", 5.0), 1.0, {
        "attention.value": 2.0
    })  # fmt: skip
    assert (later.projection.array.age, later.attention.value.array.writes) == (3620.0, 7.0), "hours come on top"
    assert (wearing(NEW), wearing(WORN)) == ([], ["attention.value"])


def test_what_cannot_be_honored_is_refused_by_name() -> None:
    with pytest.raises(of.BadInput, match=r"hardware.attention.value.array.cell: simulation.hours = 3: .* give both"):
        used(WORN, 3.0, {})
    closing = of.replace(WORN, "attention.value.array.cell.wear", {**WEAR, "w": 0.3, "n0": 1.0})
    with pytest.raises(of.BadInput, match=r"simulation.hours: hardware.attention.value.array.*wear leaves no window"):
        used(closing, 3.0, {"attention.value": 1e12})
    with pytest.raises(of.BadInput, match="needs the cost half of the study"):
        check_used(NEW, 3.0)
    check_used(used(NEW, 3.0, {}), 3.0)
    drifting = of.replace(NEW.projection.array, "cell", "pcm_joshi_2020")
    for array in (WORN.attention.value.array, drifting):
        with pytest.raises(
            of.BadInput, match=r"rules.\*.array: simulation.hours = 3 sets age and writes of the arrays"
        ):
            check_rules((("*", Rule(array=array)),), 3.0)
        check_rules((("*", Rule(array=array)),), 0.0)
    check_rules((("*", Rule(array=NEW.attention.key.array)),), 3.0)


def test_notes_say_what_hours_and_ages_leave_as_it_is() -> None:
    drifting = of.replace(NEW, "projection.array.cell", "pcm_joshi_2020")
    timed = of.replace(NEW, "projection.array.cell", "rram_neurram_2022_aihwkit")
    gpu, gain = of.load("a100_sxm_80gb"), of.load("gain_cell_leroux_2025")
    assert idle_notes(NEW, (), 0.0) == ()
    assert idle_notes(NEW, (), 5.0) == (
        "simulation.hours = 5 leaves static weights as they are: their cells have neither drift nor noise that changes "
        "with age",
        "simulation.hours = 5 leaves keys and values as they are: their cells have no wear",
    )
    for aging in (drifting, timed):
        assert [note.split(":")[0] for note in idle_notes(aging, (), 5.0)] == [
            "simulation.hours = 5 leaves keys and values as they are"
        ]
    assert len(idle_notes(WORN, (), 5.0)) == 1
    assert all(note.endswith(": they are not in cells") for note in idle_notes(gpu, (), 5.0, timeline=True))
    assert len(idle_notes(gpu, (), 5.0, timeline=True)) == 3
    assert idle_notes(gain, (), 0.0, timeline=True) == ()
    (note,) = idle_notes(NEW, (), 0.0, timeline=True)
    assert note == "simulation.age leaves keys and values as they are: their cells do not change with age"


def test_rules_with_noise_that_changes_with_age_are_refused_beside_hours() -> None:
    """Their arrays would stay as new as they were, without a word."""
    timed = of.replace(NEW.projection.array, "cell", "rram_neurram_2022_aihwkit")
    with pytest.raises(of.BadInput, match=r"rules\.head\.array: simulation\.hours = 5"):
        check_rules((("head", Rule(array=timed)),), 5.0)
