"""Every number of every specification has bounds: absurd magnitudes end in one line, in files and after --set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

import ohmformer.study.cost
import ohmformer.validation.measured_accuracy  # noqa: F401  (all specifications are known then)
from ohmformer import catalog, units
from ohmformer.device.kinds import PcmDrift, Polynomial
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec, field_adapter, load, replace, validate, walk
from ohmformer.study.cost import make_costs, price

ABSURD = (1e300, 1e-300, 10**18, -1, math.nan, math.inf, 10**400)

SIGNED = {"c0", "c1", "c2", "mu_slope", "mu_offset", "s_slope", "s_offset", "low", "mean", "high", "reported"}
"""Numbers of either sign."""
MAY_BE = {"endurance": (10**18, math.inf), "seed": (10**18,), "reported": (1e300, 1e-300, 10**18)}
"""What some take that others must not."""


def specs(cls: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for found in cls.__subclasses__():
        if found.__module__.startswith("ohmformer"):
            yield found
            yield from specs(found)


def numeric(schema: Any) -> tuple[bool, str]:
    """Whether a field holds a number, and its unit."""
    parts = [schema, *schema.get("anyOf", [])]
    found = [part for part in parts if part.get("type") in ("number", "integer")]
    return bool(found), next((part["unit"] for part in found if "unit" in part), "")


FIELDS = [
    (cls, name, numeric(field_adapter(cls, name).json_schema())[1])
    for cls in dict.fromkeys(specs())
    for name in cls.model_fields
    if name != "provenance" and numeric(field_adapter(cls, name).json_schema())[0]
]


def written(value: float, unit: str) -> Any:
    return f"{value!r} {unit}" if unit else value


def test_all_fields_with_numbers_are_found() -> None:
    names = {(cls.__name__, name) for cls, name, _ in FIELDS}
    assert {("Cell", "g_max"), ("Chip", "clock"), ("Crossbar", "rows"), ("CostModel", "steps"), ("Gain", "low")} < names
    assert len(names) > 120


@pytest.mark.parametrize(("cls", "name", "unit"), FIELDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_no_field_takes_an_absurd_number(cls: type[Spec], name: str, unit: str) -> None:
    for value in ABSURD:
        if value in MAY_BE.get(name, ()) or (value == -1 and name in SIGNED):
            continue
        with pytest.raises(ValidationError):
            field_adapter(cls, name).validate_python(written(value, unit), strict=True, context={"file": True})


@pytest.mark.parametrize("name", catalog.entries("accelerator"))
@pytest.mark.slow
def test_no_number_of_an_accelerator_takes_an_absurd_value(name: str) -> None:
    spec = load(Accelerator, name)
    units_of = {name: unit for _, name, unit in FIELDS}
    tried = 0
    for path, old, _ in walk(spec):
        field = path.split(".")[-1]
        if isinstance(old, bool) or not isinstance(old, (int, float)):
            continue
        for value in ABSURD:
            if value in MAY_BE.get(field, ()) or (value == -1 and field in SIGNED):
                continue
            tried += 1
            with pytest.raises(BadInput) as caught:
                replace(spec, path, written(value, units_of[field]), in_file=True)
            message = str(caught.value)
            assert message.startswith(f"{path} = ")
            assert "\n" not in message
            assert len(message) < 400
            assert ";" in message
    assert tried > 50


def test_the_message_names_the_bound_and_the_remedy() -> None:
    spec = load(Cell, "rram_clipformer_2024")
    for path, value, message in (
        ("g_max", "1e300 S", r"g_max = '1e300 S': is not a magnitude that occurs in S; take one between 1e-15 and 1 S"),
        ("write_noise.sigma", 1e30, r"write_noise.sigma = 1e\+30: must be <= 10; lower it"),
        ("write_pulses", 10**18, r"write_pulses = 1000000000000000000: must be <= 1,000,000; lower it"),
        ("write_time", "1e-1000000 s", r"is beyond all numbers; take one between 1e-15 and 1e\+11 s"),
        ("write_time", "1e-400 s", r"is beyond all numbers"),
        ("write_time", "1e99999999999999999999 s", r"is beyond all numbers"),
    ):
        with pytest.raises(BadInput, match=message):
            replace(spec, path, value, in_file=True)


@pytest.mark.parametrize(("text", "value"), [("3 %", 0.03), ("0.5%", 0.005), (" 100 % ", 1.0)])
def test_a_fraction_may_be_a_percentage(text: str, value: float) -> None:
    table = {"g_min": "1 uS", "g_max": "2 uS", "write_noise": {"kind": "uniform", "sigma": text}}
    cell = validate(Cell, table, where="cell")
    assert cell.write_noise.sigma == value  # type: ignore[union-attr]
    assert replace(cell, "faults.stuck_at_g_max", text, in_file=True).faults.stuck_at_g_max == value


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("3 % of it", "is not a quantity; write a number and a unit, such as '1 %'"),
        ("three", "must be a number; write the number alone, without unit and quotes"),
        ("3 S", "has the unit 'S' where % is expected; write it in %, such as '1 %'"),
    ],
)
def test_a_fraction_that_is_no_number_gets_a_remedy_that_is_toml(text: str, remedy: str) -> None:
    table = {"g_min": "1 uS", "g_max": "2 uS", "write_noise": {"kind": "uniform", "sigma": text}}
    with pytest.raises(BadInput, match=re.escape(remedy)):
        validate(Cell, table, where="cell")


def cell_with(c0: float, c1: float, c2: float, g_min: float = 0.0) -> Cell:
    noise = Polynomial(g_ref=25e-6, c0=c0, c1=c1, c2=c2)
    return Cell(g_min=g_min, g_max=25e-6, write_noise=noise)


def test_a_write_deviation_below_zero_is_refused_wherever_it_lies() -> None:
    u = 1e-6
    cell_with(0.26 * u, 1.97 * u, -1.17 * u)  # as published for PCM
    cell_with(u, -4 * u, 4 * u)  # touches zero at g = 1/2
    cell_with(-0.5 * u, u, 0.0, g_min=12.5e-6)  # negative below g_min alone
    cell_with(0.0, 0.0, 0.0)
    for coefficients in ((-u, 0.0, 0.0), (u, -1.001 * u, 0.0), (u, -4.0001 * u, 4 * u), (0.01 * u, -u, 1.1 * u)):
        with pytest.raises(BadInput, match=r"write_noise: c0 \+ c1 g \+ c2 g\^2 falls to -.* correct c0, c1 and c2"):
            cell_with(*coefficients)
    with pytest.raises(BadInput, match="falls to"):
        cell_with(-0.5 * u, u, 0.0, g_min=12.4e-6)


def test_a_polynomial_that_only_a_fine_grid_would_catch() -> None:
    """Below zero on a thousandth of the range."""
    place, depth = 0.123456, 1e-13
    c2 = 4e-6
    with pytest.raises(BadInput, match="falls to"):
        cell_with(c2 * place**2 - depth, -2 * c2 * place, c2)


def test_bounds_of_drift_are_in_order_and_finite() -> None:
    good = {
        "t0": 20.0, "mu_slope": -0.0155, "mu_offset": 0.0244, "mu_min": 0.049, "mu_max": 0.1, "s_slope": -0.0125,
        "s_offset": -0.0059, "s_min": 0.008, "s_max": 0.045,
    }  # fmt: skip
    PcmDrift(**good)
    for change in ({"mu_min": 1.0, "mu_max": 0.0}, {"s_min": 0.05}):
        with pytest.raises(BadInput, match=r"_min = .* is above .*_max = .*; exchange or correct them"):
            PcmDrift(**{**good, **change})
    for name in ("mu_slope", "mu_offset", "s_slope", "s_offset"):
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(BadInput, match="must be finite"):
                PcmDrift(**{**good, name: value})


def test_endless_endurance_survives_json() -> None:
    import json

    cell = Cell(g_min=1e-6, g_max=2e-6, endurance=math.inf)
    plain = cell.canonical()
    assert plain["endurance"] == "Infinity"
    assert Cell(**json.loads(json.dumps(plain, allow_nan=False))) == cell
    assert cell.physical() == {key: value for key, value in plain.items() if key not in Cell.cost_fields}


def test_every_limit_has_a_unit_and_an_order() -> None:
    for unit, (least, most) in units.LIMITS.items():
        assert 0 < least < most, unit
        assert units.check_magnitude(0.0, unit) == 0.0


SIZES = [
    ("model.steps", 1_000_000), ("model.batch", 10**10), ("model.batch", 10**30), ("model.batch", 10**400),
    ("model.seq_len", 10**12), ("model.context", 10**12), ("hardware.attention.array.redundancy", 10**12),
    ("hardware.attention.array.rows", 10**10), ("model.batch", 100_000),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), SIZES)
def test_what_would_take_for_ever_is_refused_at_once(path: str, value: int) -> None:
    document = {
        "name": "s",
        "model": {"source": "shapes:bert-base", "phase": "encode"},
        "hardware": "clipformer_tcad_2024_adc8",
    }
    with pytest.raises(BadInput, match=r"at most|must be <=|must be <"):
        price(make_costs(document, [f"{path}={value}"]).points[0].settings)


ABSURD = [
    ("chip.clock", "1 Hz"), ("chip.clock", "999 Hz"), ("chip.network_latency", "1 year"),
    ("chip.tile_area", "1 m^2"), ("chip.tile_power", "1 MW"), ("chip.vector.energy_per_op", "1 J"),
    ("chip.bus_energy", "1 J/B"), ("attention.array.cell.write_time", "3000 years"),
    ("attention.array.cell.write_energy", "1 J"), ("attention.array.cost.read_time", "2 h"),
    ("attention.array.cost.read_energy", "1 J"), ("attention.array.cost.area", "1 m^2"),
    ("attention.array.adc.rate", "1 uHz"), ("attention.array.adc.rate", "0.9 Hz"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), ABSURD)
def test_magnitudes_that_no_part_of_a_chip_has_are_refused(path: str, value: str) -> None:
    document = {"name": "s", "model": {"source": "shapes:bert-base"}, "hardware": "nvm_ideal"}
    with pytest.raises(BadInput, match=rf"{path} = '.*': is not a magnitude that occurs .*; take one between"):
        make_costs(document, [f"hardware.{path}='{value}'"])


def test_ages_may_be_years() -> None:
    document = {"name": "s", "model": {"source": "shapes:bert-base"}, "hardware": "nvm_ideal"}
    make_costs(document, ["hardware.attention.array.age='10 years'", "hardware.chip.clock='1 kHz'"])


@pytest.mark.parametrize("value", [1e-300, 1e-9])
def test_what_divides_a_time_is_bounded_in_python_as_well(value: float) -> None:
    gpu = load(Accelerator, "gtx_1060")
    for name in ("efficiency", "attention_efficiency", "memory_efficiency"):
        with pytest.raises(BadInput, match=rf"projection\.{name} = {value:g}: .* take one between 1e-06 and 1"):
            replace(gpu, f"projection.{name}", value)
