"""A searched value is evaluated as `ohmformer run` evaluates a file with this value, with timeline and hours of use."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.read_study import accuracy_half, cost_half, make_whole
from ohmformer.study.requirements.arrays import Arrays
from ohmformer.study.requirements.catalog import QUANTITIES
from ohmformer.study.requirements.conditions import as_read, as_run, conditions_of
from ohmformer.study.requirements.loss import LossBound
from ohmformer.study.requirements.search import QuantitySearch
from ohmformer.study.spec import Settings, Whole
from ohmformer.study.timing.ages import ages_of
from ohmformer.study.use.hours import in_use
from tests.study.small import document

BASE = {
    "base": "clipformer_tcad_2024_adc8",
    "attention.array.cell.wear": {"kind": "weibull", "stuck_at_g_max": 0.3, "shape": 1.5},
    "attention.array.write_verify": {"writes": 4, "tolerance": "5 %"},
}
LEAKY = {"kind": "power_law", "t0": "1 ns", "nu": 0.05}
PLAIN = {"array.age": "100 s", "attention.array.writes": 1e7}
"""The hardware of a study that states ages and writes itself."""
USED = {"simulation": {"batch": 5, "hours": 100}, "cost": {"rate": "20 Hz"}}
TIMED = {"simulation": {"batch": 5, "age": "timeline"}}
BOTH = {"simulation": {"batch": 5, "age": "timeline_longest", "hours": 100}, "cost": {"rate": "20 Hz"}}


def written(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The keys of an array in a file, from the parameters that a search gives for a value."""
    match name:
        case "write_noise" | "read_noise":
            return {f"cell.{name}": found}
        case "drift":
            return {"cell.drift": {**found, "t0": f"{found['t0']!r} s"}}
        case "verify_tolerance":
            return {"write_verify": found}
        case "retention":
            return {"cell.drift": {"kind": "exponential", "tau": f"{found['tau']!r} s"}}
        case "endurance":
            return {"cell.endurance": found["endurance"]}
        case "levels":
            keys = ("bits", "bits_per_cell", "levels", "radix")
            return {key: found[key] for key in keys if found[key] is not None}
    return {f"peripherals.{name}": found[name]}


def study(hardware: dict[str, Any], sections: dict[str, Any]) -> Whole:
    return make_whole(document(hardware={**BASE, **hardware}, **sections)).points[0].settings


def of_file(hardware: dict[str, Any], sections: dict[str, Any]) -> Settings:
    """What `ohmformer run` evaluates."""
    whole = make_whole(document(hardware={**BASE, **hardware}, **sections))
    return in_use(accuracy_half(whole), cost_half(whole)).points[0].settings


@pytest.mark.parametrize("kind", ["plain", "hours", "timeline", "both"])
@pytest.mark.parametrize("name", list(QUANTITIES))
def test_a_value_is_evaluated_as_in_a_file(name: str, kind: str) -> None:
    sections = {"plain": {}, "hours": USED, "timeline": TIMED, "both": BOTH}[kind]
    hardware = dict(PLAIN) if kind == "plain" else {}
    if name == "endurance" and kind == "timeline":
        hardware = {"attention.array.writes": 1e7}
    if name == "drift" and kind in ("timeline", "both"):
        hardware = {"attention.array.cell.drift": LEAKY}
    on = "projection" if (name, kind) in (("drift", "hours"), ("retention", "hours")) else "attention"
    search = QuantitySearch(QUANTITIES[name], study(hardware, sections), on, None, LossBound(0.1, "points"), 0.5)
    milder = search.start - (3 if search.start - 3 >= search.grid.mildest else -2)
    for harm in (search.start, milder):
        value = search.grid.value(harm)
        arrays = list(search.quantity.arrays_at(search.arrays, value).values())
        parameters = [search.quantity.parameters(array) for array in arrays]
        changes = {f"{on}.array.{key}": there for key, there in written(name, parameters[0]).items()}
        file = of_file({**{k: v for k, v in hardware.items() if "drift" not in k}, **changes}, sections)
        found = search.at(value).settings
        assert found == file, (value, changes)
        assert found.timing == file.timing
        if kind in ("timeline", "both"):
            there, here = ages_of(file), ages_of(found)
            assert there is not None
            assert here is not None
            assert here.plain() == there.plain()


def test_arrays_have_the_age_and_the_writes_of_the_study() -> None:
    whole = study({}, BOTH)
    longest = ages_of(as_run(whole))
    assert longest is not None
    ages, writes = conditions_of(whole)
    assert ages["projection"] == 100 * 3600
    assert max(ages["attention.key"], ages["attention.value"]) == longest.longest < 1e-3
    assert writes["attention.key"] >= 100 * 3600 * 20
    found = as_read(Arrays.of(whole), whole).by_role
    assert {place: (array.age, array.writes) for place, array in found.items()} == {
        place: (ages[place], writes[place]) for place in ages
    }
    stated = Arrays.of(Arrays(found).put(whole, found)).by_role
    assert {(array.age, array.writes) for array in stated.values()} == {(0.0, 0.0)}


def test_one_age_of_all_tokens_is_that_of_keys_and_values() -> None:
    whole = study({"array.age": "0 s"}, {"simulation": {"batch": 5, "age": "3 s"}})
    assert conditions_of(whole).ages == {"projection": 0.0, "attention.key": 3.0, "attention.value": 3.0}


@pytest.mark.parametrize(
    ("name", "on", "sections", "said"),
    [
        ("drift", "attention", TIMED, r"of all tokens in place of the timeline, such as --set 'simulation.age=\"1 day"),
        ("drift", "attention", {"simulation": {"age": "1 ms"}}, r"read 1 ms after .* --set 'simulation.age=\"1 day"),
        ("retention", "projection", TIMED, "read 0 s after the write, .* --set 'hardware.projection.array.age"),
        ("retention", "attention", USED, "read 0 s after the write, .* --set 'hardware.attention.key.array.age"),
        ("endurance", "attention", TIMED, "key have not been written before, .* --set simulation.hours=1000"),
        ("endurance", "projection", USED, "projection have not been written before, .* hardware.projection.array.wri"),
    ],
)
def test_the_remedy_fits_the_study(name: str, on: str, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        QuantitySearch(QUANTITIES[name], study({}, sections), on, None, LossBound(0.1, "points"), 0.5)
