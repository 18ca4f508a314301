"""Accelerators: roles, shorthands and dotted changes."""

import pytest

from ohmformer.array.spec import Crossbar, bits_needed
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, DigitalEngine, SramEngine
from ohmformer.schema import load, replace, validate
from tests.build import array

BASE = load(Accelerator, "clipformer_tcad_2024")


def test_attention_array_sets_key_and_value() -> None:
    changed = replace(BASE, "attention.array.cell.write_noise.gamma", 5.0)
    assert isinstance(changed.attention.key, CrossbarEngine)
    assert isinstance(changed.attention.value, CrossbarEngine)
    assert changed.attention.key.array == changed.attention.value.array
    assert changed.attention.array.cell.write_noise.gamma == 5.0  # type: ignore[union-attr]
    assert changed.projection == BASE.projection


def test_one_role_alone() -> None:
    changed = replace(BASE, "attention.key.array.cell.write_noise.gamma", 5.0)
    assert changed.attention.value == BASE.attention.value
    with pytest.raises(BadInput, match=r"attention.key.array or .value.array"):
        _ = changed.attention.array


def test_arrays_are_shared_whatever_their_sources() -> None:
    back = replace(replace(BASE, "attention.key.array.bits", 7), "attention.key.array.bits", 8)
    assert back.attention.array == BASE.attention.array
    assert hash(back) == hash(BASE)
    assert back == BASE


def test_attention_can_be_made_digital() -> None:
    digital = replace(BASE, "attention.kind", "digital")
    assert digital.attention.key == digital.attention.value == DigitalEngine()
    with pytest.raises(BadInput):
        _ = digital.attention.array
    with pytest.raises(BadInput, match=r"attention.array: is not a key here"):
        replace(digital, "attention.array.bits", 4)


def test_a_whole_accelerator_in_a_file() -> None:
    table = {
        "projection": {"kind": "digital"},
        "attention": {"array": "clipformer_2024", "value": {"kind": "digital"}, "arrays": "shared"},
    }
    spec = validate(Accelerator, table, where="file")
    assert isinstance(spec.attention.key, CrossbarEngine)
    assert spec.attention.value == DigitalEngine()


def test_in_python() -> None:
    engine = CrossbarEngine(array=array())
    spec = Accelerator.model_validate({"projection": engine, "attention": {"array": array()}})
    assert spec.attention.array == array()


@pytest.mark.parametrize("role", ["projection", "attention.key"])
def test_a_step_of_xformers_converters_is_one_digit(role: str) -> None:
    spec = load(Accelerator, "xformer_tvlsi_2023")
    engine = spec.projection if role == "projection" else spec.attention.key
    assert isinstance(engine, ArrayEngine)
    array = engine.array
    assert isinstance(array.adc.bits, int)
    assert array.adc.range.high * array.rows * array.max_digit == 2**array.adc.bits - 1  # type: ignore[union-attr]


def test_engines_say_whether_cells_compute() -> None:
    spec = load(Accelerator, "xformer_tvlsi_2023")
    assert isinstance(spec.attention.key, SramEngine)
    assert (spec.projection.simulated, spec.attention.key.simulated, DigitalEngine().simulated) == (True, True, False)
    assert (spec.attention.key.written, spec.attention.value.written) == ("left", "right")  # type: ignore[union-attr]
    puma = load(Accelerator, "puma_asplos_2019")
    assert (puma.attention.key.kind, puma.attention.key.simulated) == ("simd", False)


def test_what_things_cost_decides_no_answer_of_the_accuracy_half() -> None:
    dearer = replace(replace(BASE, "attention.array.cell.endurance", 1.0), "projection.array.cost.read_energy", 1e-6)
    assert dearer != BASE
    assert dearer.physical() == BASE.physical()
    assert replace(BASE, "chip", None).physical() == BASE.physical()
    assert replace(BASE, "attention.array.bits", 7).physical() != BASE.physical()


def test_variants_of_clipformers_accelerator_differ_in_what_they_say() -> None:
    per_value = load(Accelerator, "clipformer_tcad_2024_per_value")
    assert per_value.projection == BASE.projection
    assert per_value.attention.array.slices() == 1
    assert per_value.attention.array.cell.write_noise.sigma == 0.1  # type: ignore[union-attr]
    for bits in (8, 6):
        variant = load(Accelerator, f"clipformer_tcad_2024_adc{bits}")
        without = replace(replace(variant, "attention.array.adc", {}), "projection.array.adc", {})
        assert without == replace(BASE, "title", variant.title)
        assert variant.attention.array.adc.bits == bits
    array = BASE.attention.array
    assert bits_needed(array.rows, array.bits_per_cell) == 8


CROSSBAR = {"kind": "crossbar", "array": "clipformer_2024"}


@pytest.mark.parametrize("shorthand", [{"array": "clipformer_2024"}, {"engine": CROSSBAR}])
@pytest.mark.parametrize("role", ["projection", "attention.key", "attention.value"])
def test_a_shorthand_fills_the_roles_that_have_no_engine(shorthand: dict[str, object], role: str) -> None:
    top, _, inner = role.partition(".")
    own = {"kind": "digital"}
    spec = validate(Accelerator, {**shorthand, top: {inner: own} if inner else own}, where="file")
    engines = {
        "projection": spec.projection,
        "attention.key": spec.attention.key,
        "attention.value": spec.attention.value,
    }
    assert engines.pop(role) == DigitalEngine()
    assert {type(engine) for engine in engines.values()} == {CrossbarEngine}


def test_engine_and_array_change_all_engines() -> None:
    spec = validate(
        Accelerator, {"base": "isaac_isca_2016", "array.size": 64, "engine.array.bits_per_cell": 1}, where=""
    )
    for engine in (spec.projection, spec.attention.key, spec.attention.value):
        assert isinstance(engine, CrossbarEngine)
        assert (engine.array.rows, engine.array.columns, engine.array.bits_per_cell) == (64, 64, 1)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ({"array": "clipformer_2024", "engine": CROSSBAR}, "array"),
        ({"array": "clipformer_2024", "projection": CROSSBAR, "attention": {"array": "clipformer_2024"}}, "array"),
        ({"engine": CROSSBAR, "projection": CROSSBAR, "attention": {"key": CROSSBAR, "value": CROSSBAR}}, "engine"),
    ],
)
def test_a_shorthand_that_sets_nothing_is_refused(table: dict[str, object], name: str) -> None:
    with pytest.raises(BadInput, match=rf"^file: {name}: is given beside keys that set the same engines; leave it out"):
        validate(Accelerator, table, where="file")


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_of_one_role_wins_over_one_of_all_wherever_it_stands(order: int) -> None:
    changes = [("array.size", 64), ("attention.array.size", 128), ("attention.key.array.size", 256)]
    hardware = validate(Accelerator, {"base": "nvm_ideal", **dict(changes[::order])}, where="x")
    engines = (hardware.projection, hardware.attention.key, hardware.attention.value)
    assert [engine.array.rows for engine in engines if isinstance(engine, ArrayEngine)] == [64, 256, 128]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_win_over_the_size_wherever_they_stand(order: int) -> None:
    changes = dict([("size", 64), ("rows", 256)][::order])
    made = validate(Crossbar, {"base": "puma_2019", **changes}, where="x")
    assert (made.rows, made.columns) == (256, 64)
