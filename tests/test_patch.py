"""Patches as trees, and the changed copies that they make: as validated as a whole, and sharing what was shared."""

import doctest
from functools import cached_property
from typing import Any

import pytest
from pydantic import field_validator, model_validator

import ohmformer as of
from ohmformer import patch
from ohmformer.changed_copy import Copies, with_values
from ohmformer.hardware.spec import Accelerator
from ohmformer.patch import Patch
from ohmformer.schema import Spec, validate, walk
from tests.hardware.test_use import WEAR as WORN

CHANGES: list[tuple[str, Any]] = [
    ("projection.array.cost.adc_energy", 2e-12),
    ("attention.array.cost.read_time", 2e-8),
    ("attention.array.size", 64),
    ("projection.array.cell.g_max", 1e-4),
    ("projection.array.cell.write_pulses", 4),
    ("chip.buffer_energy", 3e-12),
    ("chip.tile_power", 0.01),
    ("projection.array.adc", {"bits": 6, "range": {"kind": "full_scale"}, "columns_per_adc": 8}),
]


def test_the_example_of_the_docstring_holds() -> None:
    assert doctest.testmod(patch).failed == 0
    assert doctest.testmod(patch).attempted == 3


def test_a_dotted_key_goes_into_a_table_that_was_given_before() -> None:
    made = Patch.of({"cell": {"g_max": 1}, "cell.g_min": 2})
    assert made.as_table() == {"cell": {"g_max": 1, "g_min": 2}}
    assert Patch.of({"cell.g_min": 2, "cell": 3}).as_table() == {"cell": 3}


def test_a_key_below_the_name_of_an_entry_changes_this_entry() -> None:
    """A sweep below an array that the table names must not drop the name."""
    hardware = {"base": "clipformer_tcad_2024", "projection": {"array": "pcm_joshi_2020"}}
    swept = validate(Accelerator, {**hardware, "projection.array.scale": "column"}, where="hardware")
    whole = validate(Accelerator, hardware, where="hardware")
    assert swept == of.replace(whole, "projection.array.scale", "column")
    both = {"base": "clipformer_tcad_2024", "attention.array": "pcm_joshi_2020", "attention.array.age": "30 s"}
    changed = validate(Accelerator, both, where="hardware")
    assert changed.attention.array == of.replace(of.load_crossbar("pcm_joshi_2020"), "age", 30.0)
    number = {"base": "clipformer_tcad_2024", "projection.array.rows": 32, "projection.array.rows.most": 3}
    with pytest.raises(of.BadInput, match="has no keys of its own"):
        validate(Accelerator, number, where="hardware")


@pytest.mark.parametrize(
    ("table", "below"),
    [
        ({"write_verify": {"writes": 10, "tolerance": 0.05}}, {"write_verify.tolerance": 0.2}),
        ({"peripherals": {"offset_mismatch": 0.1, "calibration": {"reads": 16}}}, {"peripherals.calibration.bits": 6}),
        ({"wires": {"row": "1 ohm"}}, {"wires.column": "2 ohm"}),
        ({}, {"wires.row": "1 ohm", "wires.column": "2 ohm"}),
    ],
)
def test_keys_of_a_table_that_the_base_lacks_may_be_stated_and_changed(
    table: dict[str, Any], below: dict[str, Any]
) -> None:
    """A study may sweep the tolerance of verified writes that it states itself, where its base has none."""
    base = {"base": "clipformer_tcad_2024", "attention.array.adc.range": {"kind": "given", "high": 0.5}}
    lines = {f"attention.array.{key}": value for key, value in {**table, **below}.items()}
    changed = validate(Accelerator, {**base, **lines}, where="hardware")
    ((name, whole),) = Patch.of({**table, **below}).as_table().items()
    expected = validate(Accelerator, {**base, f"attention.array.{name}": whole}, where="hardware")
    assert changed == expected
    assert changed != validate(Accelerator, base, where="hardware")


def test_a_table_that_the_base_lacks_must_be_stated_whole() -> None:
    hardware = of.load("clipformer_tcad_2024")
    with pytest.raises(of.BadInput, match=r"attention.array.write_verify.writes: is missing"):
        of.replace(hardware, "attention.array.write_verify.tolerance", 0.05)
    with pytest.raises(of.BadInput, match=r"attention.array.wires.rows: is not a key here"):
        of.replace(hardware, "attention.array.wires.rows", 1.0)


def test_the_only_change_has_its_full_path() -> None:
    assert Patch.of({"a.b.c": 1}).only_change() == (("a", "b", "c"), 1)
    assert Patch.of({"a.b": 1, "a.c": 2}).only_change() == ((), None)
    assert Patch.of({}).only_change() == ((), None)


def test_a_specification_refuses_changes_in_place_with_the_way_to_make_a_copy() -> None:
    hardware = of.load("nvm_ideal")
    for change in (lambda: setattr(hardware, "title", "x"), lambda: delattr(hardware, "title")):
        with pytest.raises(of.BadInput, match=r"^Accelerator\.title: an Accelerator never changes; make a changed"):
            change()
    with pytest.raises(of.BadInput, match=r"^KVClip\.alpha: .*; make a changed copy with of\.replace\(\.\.\., 'alpha'"):
        of.KVClip().alpha = 1.0  # type: ignore[misc]


def validated(spec: Spec) -> Spec:
    """The same values, each validated anew."""
    values = {name: getattr(spec, name) for name in type(spec).model_fields}
    nested = {name: validated(value) for name, value in values.items() if isinstance(value, Spec)}
    return type(spec).model_validate(values | nested)


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_a_changed_copy_is_what_validation_as_a_whole_gives(path: str, value: Any) -> None:
    copy = of.replace(of.load("xformer_tvlsi_2023"), path, value)
    whole = validated(copy)
    assert copy == whole
    assert list(walk(copy)) == list(walk(whole))


@pytest.mark.parametrize("path", ["attention.array.cost.read_time", "attention.array.rows", "attention.key.array.rows"])
def test_an_array_of_two_engines_is_changed_once_and_stays_shared(path: str) -> None:
    machine = of.load("xformer_tvlsi_2023")
    assert machine.attention.key.array is machine.attention.value.array  # type: ignore[union-attr]
    found = of.replace(machine, path, 64 if path.endswith("rows") else 2e-8).attention
    assert (found.key.array is found.value.array) is path.startswith("attention.array")  # type: ignore[union-attr]
    assert found.value.array.rows == (64 if path == "attention.array.rows" else 128)  # type: ignore[union-attr]


class Pair(Spec):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _order(self) -> "Pair":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    @cached_property
    def width(self) -> int:
        return self.high - self.low


class Even(Pair):
    @field_validator("high")
    @classmethod
    def _even(cls, value: int) -> int:
        return value + value % 2


def test_fields_are_checked_together_and_nothing_computed_is_kept() -> None:
    pair = Pair(low=1, high=3)
    assert pair.width == 2
    assert of.replace(pair, "high", 7).width == 6
    assert pair.width == 2
    with pytest.raises(of.BadInput, match=r"^low: .*low is above high|^low = 9: low is above high"):
        of.replace(pair, "low", 9)


def test_a_class_with_validators_of_single_fields_is_validated_as_a_whole() -> None:
    assert of.replace(Even(), "high", 5).high == 6
    assert with_values(Even(), {"high": 5}).high == 6


def test_a_copy_is_made_once_for_each_specification_and_change() -> None:
    copies, one, other, change = Copies(), Pair(), Pair(), object()
    made = [copies.of(spec, change, lambda: Pair(high=5)) for spec in (one, one, other)]
    assert made[0] is made[1]
    assert made[2] is not made[0]
    assert copies.of(one, object(), lambda: Pair(high=6)).high == 6


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("array.writes", 10, "array.writes = 10: change nothing"),
        ("array.cell.drift", {"kind": "exponential", "tau": 1.0, "g_rest": 0.5}, "cell.drift: g_rest = 500 mS is"),
        ("array.cell.wear", {"kind": "weibull"}, "array.cell.wear: nothing says"),
        ("refresh_loss", "10 %", "refresh_loss = '10 %': no cells of K and V"),
        ("array.wires", {"row": 1e3, "column": 1e3, "ir_drop": "first_order"}, "array.wires: ir_drop = 'first_order'"),
    ],
)  # fmt: skip
def test_a_message_names_its_field_once(path: str, value: Any, message: str) -> None:
    hardware = of.load("clipformer_tcad_2024")
    for name in ("attention.array.cell.endurance", "attention.array.cell.drift"):
        hardware = of.replace(hardware, name, 1e6 if name.endswith("endurance") else {"kind": "none"})
    with pytest.raises(of.BadInput) as refused:
        of.replace(hardware, f"attention.{path}", value)
    assert message in str(refused.value)


@pytest.mark.parametrize("general", ["array.writes", "attention.array.writes"])
def test_parts_that_fit_only_together_may_stand_under_an_alias_and_under_its_fields(general: str) -> None:
    """Counted writes need wear, which every role states by itself."""
    wear = {f"{role}.array.cell.wear": WORN for role in ("projection", "attention.key", "attention.value")}
    for table in ({general: 1e5, **wear}, {**wear, general: 1e5}):
        made = validate(Accelerator, {"base": "clipformer_tcad_2024", **table}, where="hardware")
        assert (made.attention.key.array.writes, made.attention.value.array.writes) == (1e5, 1e5)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"attention.array.writes": 1e5, "attention.key.array.cell.wear": WORN}, "attention.array.writes = 100000.0:"),
        ({"array.writes": 1e5, "attention.key.array.cell.wear": WORN}, "array.writes = 100000.0:"),
        ({"attention.array.cell.wear": WORN, "attention.key.array.cell.wear.w": -3}, "attention.key.array.cell.wear.w"),
        ({"attention.array.rows": -3, "attention.key.array.rows": 32}, "attention.array.rows = -3:"),
    ],
)
def test_faults_of_joined_changes_stand_under_the_key_that_was_written(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(of.BadInput) as refused:
        validate(Accelerator, {"base": "clipformer_tcad_2024", **changes}, where="hardware")
    assert str(refused.value).startswith(f"hardware: {fault}")
