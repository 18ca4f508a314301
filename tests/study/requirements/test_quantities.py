"""Every quantity reads its number from a cell of any kind, and writes another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer.array.spec import Crossbar
from ohmformer.device.kinds import NoNoise
from ohmformer.errors import BadInput
from ohmformer.schema import replace
from ohmformer.study.read_study import make_whole
from ohmformer.study.requirements.arrays import Arrays, with_array, with_cell
from ohmformer.study.requirements.catalog import QUANTITIES, quantity, read_kinds
from ohmformer.study.requirements.quantity import Grid
from ohmformer.study.spec import Whole
from tests.study.requirements.build import document

BASE = of.load_crossbar("clipformer_2024_per_value")


def array(cell: dict[str, Any], **more: Any) -> Crossbar:
    for field, table in cell.items():
        more_array = replace(BASE if field == next(iter(cell)) else more_array, f"cell.{field}", table)  # noqa: F821
    return with_array(more_array, **more) if more else more_array


WRITE = [
    {"kind": "sqrt_range", "gamma": 2.0, "sigma": 0.1},
    {"kind": "proportional", "sigma": 0.1},
    {"kind": "uniform", "sigma": 0.1},
    {"kind": "lognormal", "sigma": 0.3},
    {"kind": "polynomial", "g_ref": 25e-6, "c0": 1e-6, "c1": 2e-6, "c2": -1e-6},
    {"kind": "piecewise_polynomial", "g_ref": 25e-6, "coefficients": [[1e-6], [1e-6, 1e-6]], "borders": [5e-6]},
    {"kind": "table", "targets": [0.0, 1e-5, 1e-3], "std": [1e-7, 3e-7, 2e-7]},
]
READ = [
    {"kind": "proportional", "sigma": 0.1},
    {"kind": "uniform", "sigma": 0.1},
    {"kind": "pcm_flicker", "q_scale": 0.01, "q_power": 0.6, "q_max": 0.2, "t_read": 1e-6},
    {"kind": "flicker_table", "g": [0.0, 0.5, 1.0], "q": [0.02, 0.01, 0.005], "t_read": 1e-6},
]
DRIFT = [
    {"kind": "power_law", "t0": 1.0, "nu": 0.05, "nu_std": 0.01},
    {"kind": "power_law", "t0": 1.0, "nu": 0.0, "nu_std": 0.01},
    {"kind": "power_law_table", "t0": 1.0, "g": [0.0, 1.0], "nu": [0.1, 0.05], "nu_std": [0.0, 0.01]},
]
CASES = [
    *(("write_noise", "write_noise", kind) for kind in WRITE),
    *(("read_noise", "read_noise", kind) for kind in READ),
    *(("drift", "drift", kind) for kind in DRIFT),
]


@pytest.mark.parametrize(("name", "field", "kind"), CASES, ids=[f"{c[0]} {c[2]['kind']}" for c in CASES])
def test_a_kind_of_any_shape_is_scaled_to_a_number(name: str, field: str, kind: dict[str, Any]) -> None:
    """Twice the number is twice the noise at every conductance, but for the lognormal, whose law is not linear."""
    wanted, here = QUANTITIES[name], array({field: kind}, age=100.0)
    now = wanted.value(here)
    assert now > 0
    there = wanted.changed(here, 2 * now)
    assert wanted.value(there) == pytest.approx(2 * now, rel=1e-6)
    if kind["kind"] == "lognormal":
        return
    g = torch.linspace(here.cell.g_min, here.cell.g_max, 7, dtype=torch.float64)
    one, two = (_effect(name, each, g) for each in (here, there))
    assert torch.allclose(two, 2 * one, rtol=1e-6)


def _effect(name: str, at: Crossbar, g: torch.Tensor) -> torch.Tensor:
    cell, eps = at.cell, torch.full_like(g, 0.5)
    if name == "write_noise":
        return cell.write_noise.write_std(g, cell)
    if name == "read_noise":
        return cell.read_noise.read_std(g, cell, age=at.age, written=None)
    return cell.drift.exponent(g, cell, eps)  # type: ignore[attr-defined]


def test_drift_of_pcm_is_scaled() -> None:
    drift, here = QUANTITIES["drift"], of.load_crossbar("pcm_joshi_2020")
    here = with_array(here, age=1e4)
    there = drift.changed(here, 0.5 * drift.value(here))
    g = torch.linspace(1e-6, here.cell.g_max, 5, dtype=torch.float64)
    assert torch.allclose(_effect("drift", there, g), 0.5 * _effect("drift", here, g), rtol=1e-6)


def settings(*sets: str, **changes: Any) -> Whole:
    return make_whole(document(**changes), sets).points[0].settings


def test_arrays_keep_their_ratio() -> None:
    """Static weights of this accelerator have a tenth of the noise of K and V."""
    point = settings()
    noise = QUANTITIES["write_noise"]
    arrays = Arrays.of(point)
    found = Arrays.of(noise.put(point, noise.prepared(arrays, point, None), 0.05)).by_role
    values = {role: noise.value(each) for role, each in found.items()}
    assert values["attention.key"] == values["attention.value"] == pytest.approx(0.05)
    assert values["projection"] == pytest.approx(0.005)


def test_only_the_chosen_arrays_change() -> None:
    point, noise = settings(), QUANTITIES["write_noise"]
    prepared = noise.prepared(Arrays.of(point, "attention.key"), point, None)
    changed = noise.put(point, prepared, 0.05).hardware
    assert changed.projection == point.hardware.projection
    assert changed.attention.value == point.hardware.attention.value
    assert changed.attention.key != point.hardware.attention.key


def test_arrays_of_rules_change_too() -> None:
    rules = {"blocks.0.*": {"array": "clipformer_2024_per_value"}}
    point, noise = settings(rules=rules), QUANTITIES["read_noise"]
    changed = noise.put(point, noise.prepared(Arrays.of(point), point, None), 0.05)
    (_, rule), *_ = changed.rules
    assert rule.array is not None
    assert noise.value(rule.array) == pytest.approx(0.05)
    with pytest.raises(BadInput, match="names an array of its own"):
        Arrays.of(point, "attention")


def test_cells_without_noise_get_the_named_kind() -> None:
    silent = "hardware.array.cell.write_noise={kind='none'}"
    point = settings(f"hardware.projection.array.cell.write_noise={silent.partition('=')[2]}",
                     f"hardware.attention.array.cell.write_noise={silent.partition('=')[2]}")  # fmt: skip
    noise = QUANTITIES["write_noise"]
    for kind, named in ((None, "uniform"), ("sqrt_range", "sqrt_range"), ("lognormal", "lognormal")):
        arrays = noise.prepared(Arrays.of(point), point, kind)
        found = noise.arrays_at(arrays, 0.03)
        assert {each.cell.write_noise.kind for each in found.values()} == {named}
        assert {round(noise.value(each), 6) for each in found.values()} == {0.03}
    with pytest.raises(BadInput, match="is not a kind of write noise; did you mean 'sqrt_range'"):
        noise.prepared(Arrays.of(point), point, "sqrt_rang")
    with pytest.raises(BadInput, match="'table': has targets, which no default gives"):
        noise.prepared(Arrays.of(point), point, "table")


def test_silent_arrays_stay_silent_beside_noisy_ones() -> None:
    point = settings("hardware.projection.array.cell.write_noise={kind='none'}")
    noise = QUANTITIES["write_noise"]
    changed = noise.put(point, noise.prepared(Arrays.of(point), point, None), 0.3)
    assert changed.hardware.projection.array.cell.write_noise == NoNoise()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "sets", "said"),
    [
        ("drift", (), "before drift begins at t0 = 1 s; set a later age"),
        ("retention", (), "when nothing has decayed; set a later age"),
        ("verify_tolerance", (), "no writes are verified; say how often"),
        ("levels", ("simulation.level=noise",), "has no digits"),
        ("read_noise", ("simulation.level=noise",), "leaves read noise out"),
        (
            "read_noise",
            ("hardware.projection.array.cell.read_noise={kind='pcm_flicker', q_scale=0.1, q_power=0.5, q_max=0.2, "
             "t_read='1 us'}",),
            "is 0 in the middle of the range",
        ),
    ],
)  # fmt: skip
def test_a_quantity_that_does_not_act_says_what_is_missing(name: str, sets: tuple[str, ...], said: str) -> None:
    point = settings(*sets)
    with pytest.raises(BadInput, match=said):
        QUANTITIES[name].prepared(Arrays.of(point), point, None)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 13, 16])
@pytest.mark.parametrize("name", ["clipformer_2024", "clipformer_2024_per_value"])
def test_levels_keep_the_number_of_cells(name: str, levels: int) -> None:
    """Codes then use all combinations of levels."""
    wanted, here = QUANTITIES["levels"], of.load_crossbar(name)
    there = wanted.changed(here, levels)
    assert there.used_levels == levels
    assert there.slices() == here.slices()
    assert there.max_code == levels ** there.slices() - 1


def test_levels_end_with_those_of_the_cell() -> None:
    wanted = QUANTITIES["levels"]
    few = with_cell(of.load_crossbar("clipformer_2024"), levels=6)
    assert wanted.range(Arrays({"projection": few})) == (2.0, 6.0)


def test_grids_do_not_depend_on_their_ends() -> None:
    """So that searches with other ranges find the stored points of one another."""
    wide, narrow = Grid(1e-4, 1.0, 0.05, "largest"), Grid(1e-2, 0.1, 0.05, "largest")
    inner = {narrow.value(harm) for harm in range(narrow.mildest, narrow.harshest + 1)}
    assert inner < {wide.value(harm) for harm in range(wide.mildest, wide.harshest + 1)}
    taus = Grid(1e-3, 1e3, 0.05, "smallest")
    assert taus.value(taus.mildest) > taus.value(taus.harshest)
    assert taus.value(taus.harm(2.0)) == pytest.approx(2.0, rel=0.025)


def test_names_are_suggested() -> None:
    assert quantity("tau") is QUANTITIES["retention"]
    assert quantity("Write-Noise") is QUANTITIES["write_noise"]
    with pytest.raises(BadInput, match="did you mean 'write_noise'"):
        quantity("write_nois")
    with pytest.raises(BadInput, match="write QUANTITY=KIND"):
        read_kinds(["sqrt_range"])
    with pytest.raises(BadInput, match="leave one of them out"):
        read_kinds(["write_noise=uniform", "write-noise=sqrt_range"])


def test_drift_of_another_law_is_not_replaced() -> None:
    tables = {
        "exponential": {"kind": "exponential", "tau": "1 s"},
        "power_law": {"kind": "power_law", "t0": "1 s", "nu": 0.1},
    }
    for name, own, said in (
        ("drift", "exponential", "'exponential' has no exponent"),
        ("retention", "power_law", "'power_law', which has no time constant"),
    ):
        point = settings()
        arrays = Arrays({
            place: replace(with_array(each, age=10.0), "cell.drift", tables[own], in_file=True)
            for place, each in Arrays.of(point).by_role.items()
        })  # fmt: skip
        with pytest.raises(BadInput, match=said):
            QUANTITIES[name].prepared(arrays, point, None)


def test_a_kind_of_strength_zero_stays_the_kind() -> None:
    point = settings("hardware.projection.array.cell.write_noise.gamma=0",
                     "hardware.attention.array.cell.write_noise.gamma=0")  # fmt: skip
    noise = QUANTITIES["write_noise"]
    arrays = noise.prepared(Arrays.of(point), point, None)
    assert {each.cell.write_noise.kind for each in arrays.by_role.values()} == {"sqrt_range"}


def test_drift_leaves_out_arrays_that_are_read_at_once() -> None:
    point = settings("hardware.attention.key.array.age='1 day'")
    drift = QUANTITIES["drift"]
    assert list(drift.prepared(Arrays.of(point), point, None).by_role) == ["attention.key"]


def test_the_page_and_the_help_name_every_quantity() -> None:
    page = (Path(__file__).parents[3] / "docs" / "require.md").read_text(encoding="utf-8")
    options = (Path(of.__file__).parent / "cli" / "options.py").read_text(encoding="utf-8")
    for name in QUANTITIES:
        assert f"| `{name}`" in page
        assert name in options


def test_retention_is_that_at_the_temperature_of_the_cells() -> None:
    heat = {"kind": "exponential", "tau": "5 ms", "activation_energy": "0.6 eV", "tau_at": "25 degC"}
    warm = replace(with_array(BASE, age=1e-3), "cell.drift", {**heat, "temperature": "85 degC"}, in_file=True)
    retention = QUANTITIES["retention"]
    assert retention.value(warm) == warm.cell.drift.tau_now < 2e-4  # type: ignore[attr-defined]
    there = retention.changed(warm, 0.01)
    assert retention.value(there) == pytest.approx(0.01, rel=1e-12)
    assert retention.parameters(there)["tau_now"] == pytest.approx(0.01, rel=1e-12)
    assert retention.parameters(there)["tau"] == pytest.approx(0.01 * 5e-3 / retention.value(warm))


def test_cells_without_decay_get_the_same_time_constant() -> None:
    point = settings("hardware.projection.array.age='1 day'", "hardware.attention.array.age='1 s'")
    retention = QUANTITIES["retention"]
    arrays = retention.prepared(Arrays.of(point), point, None)
    found = retention.arrays_at(arrays, 7.0)
    assert {place: retention.value(array) for place, array in found.items()} == dict.fromkeys(found, 7.0)
    assert retention.first(arrays) == 10 * 86400


def test_cells_without_wear_get_some_in_hours_of_use() -> None:
    point = settings("simulation.hours=10", "cost.rate='20 Hz'")
    endurance = QUANTITIES["endurance"]
    found = endurance.prepared(Arrays.of(point), point, None).by_role
    assert list(found) == ["attention.key", "attention.value"]
    for array in found.values():
        assert (array.cell.wear.kind, array.cell.wear.stuck_at_g_max, array.cell.wear.shape) == ("weibull", 0.5, 2.0)  # type: ignore[attr-defined]
        assert array.writes == 10 * 3600 * 20
    with pytest.raises(BadInput, match="only 'weibull' needs no more numbers"):
        endurance.prepared(Arrays.of(point), point, "own")
    off = endurance.off(found["attention.key"])
    assert off is not None
    assert off.aged_cell.faults == off.cell.faults


@pytest.mark.parametrize(("name", "able"), [("output_noise", False), ("input_noise", True)])
def test_noise_of_converters_needs_their_range(name: str, able: bool) -> None:
    ideal = [f"hardware.{role}.array.adc={{bits='ideal'}}" for role in ("projection", "attention")]
    point, noise = settings(*ideal), QUANTITIES[name]
    if not able:
        with pytest.raises(BadInput, match=r"output_noise: projection: .* is a share of the range of a converter"):
            noise.prepared(Arrays.of(point), point, None)
        return
    arrays = noise.prepared(Arrays.of(point), point, None)
    changed = noise.put(point, arrays, 0.02)
    assert {noise.value(array) for array in Arrays.of(changed).by_role.values()} == {0.02}
    assert noise.put(changed, arrays, None) == point
