"""Every bad input gives one line that names the file, the full path, the value and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ohmformer.array.spec import Crossbar
from ohmformer.device.kinds import PowerLaw, SqrtRange, Uniform
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.key_search import former_names
from ohmformer.mitigation.spec import KVClip
from ohmformer.provenance import Source
from ohmformer.schema import Spec, load, replace, validate, walk
from ohmformer.study.cost import read_costs
from ohmformer.study.spec import CostOptions, Whole

CELL = """
[cell]
g_min = { value = "0.1 uS", source = "paper2024", where = "Table I" }
g_max = "10 uS"
[cell.write_noise]
kind = "sqrt_range"
sigma = 0.1
"""
ARRAY = """
[array]
base = "clipformer_2024"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write an entry into a user's library, and give its name."""
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))

    def put(kind: str, name: str, text: str) -> str:
        file = tmp_path / f"{kind}s" / f"{name}.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return name

    return put


def message(call: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(BadInput) as caught:
        call(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_file_becomes_a_specification_with_sources(write: Any) -> None:
    cell = load(Cell, write("cell", "mine", CELL))
    assert (cell.g_min, cell.g_max) == (1e-7, 1e-5)
    sources = {path: source for path, _, source in walk(cell)}
    assert sources["g_min"] == Source(source="paper2024", where="Table I", kind="published")
    assert sources["write_noise.sigma"] == Source(kind="user")
    assert sources["write_noise.gamma"] is None
    assert sources["faults.stuck_at_g_min"] is None


BAD_CELLS = [
    ('g_max = "10 uS"', 'g_maximum = "10 uS"', "cell.g_maximum: is not a key here; did you mean 'g_max'?"),
    ('g_max = "10 uS"', "", "cell.g_max: is missing; add it"),
    ('g_max = "10 uS"', "g_max = 10", "cell.g_max = 10: has no unit; write a number and a unit, such as '10 uS'"),
    (
        'g_max = "10 uS"',
        "g_max = { value = 10.5 }",
        "cell.g_max = 10.5: has no unit; write a number and a unit, such as '10 uS'",
    ),
    ('g_max = "10 uS"', 'g_max = "10"', "cell.g_max = '10': has no unit; write a number and a unit, such as '10 uS'"),
    (
        'g_max = "10 uS"',
        'g_max = "10 uA"',
        "cell.g_max = '10 uA': has the unit 'uA' where S is expected; write it in S",
    ),
    ('g_max = "10 uS"', 'g_max = "ten"', "cell.g_max = 'ten': is not a quantity; write a number and a unit"),
    ('g_max = "10 uS"', 'g_max = "-10 uS"', "cell.g_max = '-10 uS': must be > 0; raise it"),
    ('g_max = "10 uS"', 'g_max = "1e999 S"', "cell.g_max = '1e999 S': must be finite; write a finite number"),
    ('g_max = "10 uS"', 'g_max = "0.01 uS"', "cell: g_min = 1e-07 S is not below g_max = 1e-08 S; correct one of them"),
    ('g_max = "10 uS"', "g_max = true", "cell.g_max = True: must be a number; write one without quotes"),
    ('g_max = "10 uS"', 'g_max = { value = "10 uS", sauce = "x" }', "cell.g_max.sauce = 'x': is not a key here; leave"),
    ('g_max = "10 uS"', 'g_max = { value = "10 uS", kind = "guess" }', "cell.g_max.kind = 'guess': must be 'publi"),
    ('g_max = "10 uS"', 'g_max = "10 uS"\nprovenance = 3', "cell.provenance: is not a key here"),
    ("sigma = 0.1", "sigma = -0.1", "cell.write_noise.sigma = -0.1: must be >= 0; raise it"),
    ("sigma = 0.1", "sigma = nan", "cell.write_noise.sigma = nan: must be finite; write a finite number"),
    ("sigma = 0.1", 'sigma = "0.1"', "cell.write_noise.sigma = '0.1': must be a number; write one without quotes"),
    ("sigma = 0.1", "", "cell.write_noise.sigma: is missing; add it"),
    ("sigma = 0.1", "sigma = 0.1\ngama = 3", "cell.write_noise.gama: is not a key here; did you mean 'gamma'?"),
    (
        'kind = "sqrt_range"',
        'kind = "sqrt"',
        "cell.write_noise.kind = 'sqrt': is not a kind; did you mean 'sqrt_range'?",
    ),
    ('kind = "sqrt_range"', "", "cell.write_noise.kind: is missing; add kind = 'none', 'sqrt_range'"),
    ("[cell.write_noise]", "levels = 1\n[cell.write_noise]", "cell.levels = 1: must be >= 2; raise it"),
    (
        "[cell.write_noise]",
        "levels = 2.5\n[cell.write_noise]",
        "cell.levels = 2.5: must be a whole number; write one",
    ),
    ("[cell.write_noise]", "faults = 3\n[cell.write_noise]", "cell.faults = 3: must be a table; write { KEY = VALUE }"),
]


@pytest.mark.parametrize(("old", "new", "expected"), BAD_CELLS)
def test_one_line_with_file_path_value_and_remedy(
    write: Any, old: str, new: str, expected: str, tmp_path: Path
) -> None:
    assert old in CELL
    text = message(load, Cell, write("cell", "mine", CELL.replace(old, new)))
    assert text.startswith(f"{tmp_path}/cells/mine.toml: {expected}")


BAD_ARRAYS = [
    ('"cell.write_noise.sigma" = -1', "array.cell.write_noise.sigma = -1: must be >= 0; raise it"),
    ("cell.write_noise.sigma = -1", "array.cell.write_noise.sigma = -1: must be >= 0; raise it"),
    ("[array.cell.write_noise]\nsigma = -1", "array.cell.write_noise.sigma = -1: must be >= 0; raise it"),
    ('"cell.g_max" = 10', "array.cell.g_max = 10: has no unit; write a number and a unit, such as '10 uS'"),
    ('"cell.colour" = 1', "array.cell.colour: is not a key here; known:"),
    ('"rows.x" = 1', "array.rows: has no keys of its own; set it as a whole"),
    ("bits = 1", "array.bits = 1: bits_per_cell = 2 is above bits = 1; lower it"),
    ("bits = 0", "array.bits = 0: must be >= 1; raise it"),
    ("adc.bits = 0", "array.adc.bits = 0: must be >= 1 or 'ideal'; correct it"),
    ('encoding = "ofset"', "array.encoding = 'ofset': must be 'differential' or 'offset'; did you mean 'offset'?"),
    ('cell = "nope"', "array.cell = 'nope': is not among the cells of the library; known:"),
    ("cell = 3", "array.cell = 3: must be a table or the name of a library cell"),
    ('[array.adc.range]\nkind = "given"\nlow = 0.5\nhigh = 0.4', "array.adc.range: low = 0.5 is not below high = 0.4"),
]


@pytest.mark.parametrize(("line", "expected"), BAD_ARRAYS)
def test_a_change_of_a_base_names_the_full_path(write: Any, line: str, expected: str, tmp_path: Path) -> None:
    text = message(load, Crossbar, write("array", "mine", ARRAY + line))
    assert text.startswith(f"{tmp_path}/arrays/mine.toml: {expected}")


def test_a_base_that_is_missing_is_none_or_leads_back(write: Any, tmp_path: Path) -> None:
    text = message(load, Crossbar, write("array", "mine", '[array]\nbase = "clipformer_2042"'))
    assert text.startswith(
        f"{tmp_path}/arrays/mine.toml: array.base = 'clipformer_2042': is not among the arrays of the library"
    )
    text = message(load, Crossbar, write("array", "mine", "[array]\nbase = 3"))
    assert text.startswith(f"{tmp_path}/arrays/mine.toml: array.base = 3: must be the name of a library array")
    text = message(load, Crossbar, write("array", "mine", '[array]\nbase = "mine"'))
    assert text.endswith("array.base = 'mine': leads back to itself (mine -> mine); start from another entry")
    write("array", "other", '[array]\nbase = "mine"')
    text = message(load, Crossbar, write("array", "mine", '[array]\nbase = "other"'))
    assert text == (
        f"{tmp_path}/arrays/other.toml: array.base = 'mine': "
        "leads back to itself (mine -> other -> mine); start from another entry"
    )


def test_an_error_in_a_nested_entry_names_the_innermost_file(write: Any, tmp_path: Path) -> None:
    write("cell", "broken", CELL.replace("0.1 uS", "0.1 uV"))
    write("array", "uses_it", f'{ARRAY}cell = "broken"')
    write("array", "starts_from_it", '[array]\nbase = "uses_it"')
    projection = "[accelerator.projection]\nkind = 'crossbar'\narray = 'starts_from_it'\n"
    attention = "[accelerator.attention]\narray = 'clipformer_2024'\n"
    name = write("accelerator", "mine", f"[accelerator]\n{attention}{projection}")
    text = message(load, Accelerator, name)
    assert text.startswith(f"{tmp_path}/cells/broken.toml: cell.g_min = '0.1 uV': has the unit")


def test_a_path_of_a_file_is_looked_up_beside_the_file_that_names_it(write: Any, tmp_path: Path) -> None:
    write("cell", "mine", CELL)
    name = write("array", "mine", f'{ARRAY}cell = "../cells/mine.toml"')
    assert load(Crossbar, name).cell.write_noise == SqrtRange(sigma=0.1)
    assert load(Crossbar, str(tmp_path / "arrays" / "mine.toml")).cell.g_min == 1e-7
    text = message(load, Crossbar, write("array", "mine", f'{ARRAY}cell = "gone.toml"'))
    assert "array.cell = 'gone.toml': no such file" in text


def test_keys_of_a_base_are_changed_together(write: Any) -> None:
    """Only the outcome must be consistent; whatever else a table within holds stays."""
    text = ARRAY + 'bits_per_cell = 12\nbits = 12\ncell.g_min = "20 uS"\ncell.g_max = "200 uS"\n[array.adc]\nbits = 8'
    changed, base = load(Crossbar, write("array", "mine", text)), load(Crossbar, "clipformer_2024")
    assert (changed.bits, changed.bits_per_cell, changed.cell.g_min, changed.adc.bits) == (12, 12, 2e-5, 8)
    assert changed.cell.write_noise == base.cell.write_noise
    assert (changed.rows, changed.inputs) == (base.rows, base.inputs)


def test_another_kind_in_a_base_keeps_what_both_kinds_have(write: Any) -> None:
    text = ARRAY + '"cell.write_noise.kind" = "uniform"\n"cell.drift" = { kind = "power_law", t0 = "1 s", nu = 0.1 }'
    changed = load(Crossbar, write("array", "mine", text))
    assert changed.cell.write_noise == Uniform(sigma=0.2)
    assert changed.cell.drift == PowerLaw(t0=1.0, nu=0.1)


BASE = load(Accelerator, "clipformer_tcad_2024")
assert isinstance(BASE.attention.value, ArrayEngine)
BASE_COLUMNS = BASE.attention.value.array.columns
BAD_CHANGES = [
    ("attention.array.cell.write_noise.gamma", -1, "must be >= 0; raise it"),
    ("attention.key.array.cell.write_noise.gamma", "5", "must be a number; write one without quotes"),
    ("attention.array.bits", 1, "bits_per_cell = 2 is above bits = 1; lower it"),
    ("attention.array.cell.g_max", "1 nS", "g_min = 1e-07 S is not below g_max = 1e-09 S; correct one of them"),
    ("attention.array.inputs.kind", "serial", "is not a kind; did you mean 'bit_serial'?"),
    ("attention.arrays", "some", "must be 'shared' or 'per_layer'; take one of them"),
    ("projection.array", "clipformer_20", "is not among the arrays of the library; did you mean"),
]


@pytest.mark.parametrize(("path", "value", "reason"), BAD_CHANGES)
def test_a_change_that_fails_deep_inside_shows_the_path_as_given(path: str, value: Any, reason: str) -> None:
    assert message(replace, BASE, path, value).startswith(f"{path} = {value!r}: {reason}")


@pytest.mark.parametrize(
    ("path", "wrong", "known"),
    [("attention.aray.bits", "attention.aray", "array"), ("attention.array.cel.g_max", "attention.array.cel", "cell")],
)
def test_an_unknown_path_shows_where_it_ends(path: str, wrong: str, known: str) -> None:
    assert message(replace, BASE, path, 1).startswith(f"{wrong}: is not a key here; did you mean {known!r}?")


def test_a_table_within_a_change_names_its_key() -> None:
    text = message(replace, BASE, "attention.array.cell.write_noise", {"kind": "uniform", "sigma": -1})
    assert text == "attention.array.cell.write_noise.sigma = -1: must be >= 0; raise it"


def test_quantities_in_code_are_floats_and_in_files_have_units() -> None:
    assert replace(BASE, "projection.array.cell.g_max", 2e-5) == replace(BASE, "projection.array.cell.g_max", "20 uS")
    text = message(replace, BASE, "projection.array.cell.g_max", 2e-5, in_file=True)
    assert text.startswith("projection.array.cell.g_max = 2e-05: has no unit; write '2e-05 S'")


def test_a_change_is_marked_as_the_users() -> None:
    sources = {path: source for path, _, source in walk(replace(BASE, "projection.array.rows", 128))}
    assert sources["projection.array.rows"] == Source(kind="user")
    assert sources["projection.array.columns"] == Source(source="clipformer2024", where="mapping, step 2")


def test_a_change_marks_no_other_field() -> None:
    before = {path: source for path, _, source in walk(load(Crossbar, "clipformer_2024"))}
    changed = replace(load(Crossbar, "clipformer_2024"), "cell.write_noise.gamma", 2.0)
    after = {path: source for path, _, source in walk(changed)}
    assert {path for path in after if after[path] != before[path]} == {"cell.write_noise.gamma"}
    assert after["cell.write_noise.gamma"] == Source(kind="user")
    assert after["redundancy"] is after["percentile"] is after["age"] is None


def test_a_change_of_kind_marks_what_it_states() -> None:
    changed = replace(load(Crossbar, "clipformer_2024"), "inputs", {"kind": "amplitude", "bits": 4})
    sources = {path: source for path, _, source in walk(changed)}
    assert sources["inputs.bits"] == Source(kind="user")
    assert sources["inputs.percentile"] is None


def test_a_name_below_base_drops_the_source_of_the_base(write: Any) -> None:
    text = '[array]\nbase = "isaac_2016"\n[array.cost]\ntiming = { value = "one_access", kind = "assumed" }\n'
    array = load(Crossbar, write("array", "mine", text))
    assert {path: source for path, _, source in walk(array)}["cost.timing"] == Source(kind="assumed")
    array = load(Crossbar, write("array", "again", '[array]\nbase = "mine"\n"cost.timing" = "bit_serial"\n'))
    assert {path: source for path, _, source in walk(array)}["cost.timing"] is None


def test_validate_counts_the_keys_that_are_wrong() -> None:
    table = {"g_min": "0 S", "g_max": "-1 S", "levels": 0, "g_ceiling": 3}
    text = message(validate, Cell, table, where="study.toml", top="hardware.cell")
    assert text == "study.toml: hardware.cell.g_max = '-1 S': must be > 0; raise it (and 2 more)"
    assert message(validate, Cell, 3, where="").startswith("must be a table")


def test_canonical_form_is_plain_and_knows_no_sources() -> None:
    plain = load(Cell, "rram_clipformer_2024").canonical()
    assert plain["g_max"] == 1e-5
    assert "provenance" not in str(plain)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: KVClip(alpha=-1.0), "KVClip: alpha = -1.0: must be >= 0; raise it"),
        (lambda: Cell(g_min=2e-5, g_max=1e-5), "Cell: g_min = 2e-05 S is not below g_max = 1e-05 S"),
        (lambda: Cell(g_min=1e-7, g_max=1e-5, g_mid=1e-6), "Cell: g_mid: is not a key here"),  # type: ignore[call-arg]
        (
            lambda: Cell(g_min=1e-7, g_max=1e-5, write_noise={"kind": "uniform", "sigma": -1.0}),  # type: ignore[arg-type]
            "Cell: write_noise.sigma = -1.0: must be >= 0",
        ),
    ],
)
def test_a_specification_made_in_python_is_refused_in_one_line(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_changes_of_the_same_field_are_made_one_after_another(write: Any) -> None:
    """An alias and a path below one of its fields both change that field: the later change keeps the earlier one."""
    text = (
        '[accelerator]\nbase = "clipformer_tcad_2024"\n"attention.array.rows" = 32\n"attention.key.array.columns" = 16'
    )
    changed = load(Accelerator, write("accelerator", "mine", text)).attention
    assert isinstance(changed.key, ArrayEngine)
    assert isinstance(changed.value, ArrayEngine)
    assert (changed.key.array.rows, changed.key.array.columns) == (32, 16)
    assert (changed.value.array.rows, changed.value.array.columns) == (32, BASE_COLUMNS)


class Lamp(Spec):
    """A specification with keys that were renamed."""

    renamed: ClassVar[dict[str, str]] = {"colour": "color", "watts": "power"}
    color: str = "white"
    power: int = 1
    inner: KVClip | None = None


class Lantern(Lamp):
    """One that inherits them and renamed another."""

    renamed: ClassVar[dict[str, str]] = {"flame": "wick"}
    wick: int = 1


def test_a_renamed_key_is_refused_with_its_new_name() -> None:
    text = message(validate, Lamp, {"colour": "red"}, where="study.toml", top="room.lamp")
    assert text == "study.toml: room.lamp.colour: is now called color; rename it"
    assert message(replace, Lamp(), "watts", 3) == "watts: is now called power; rename it"
    assert message(lambda: Lamp(colour="red")) == "Lamp: colour: is now called color; rename it"  # type: ignore[call-arg]


def test_a_renamed_key_is_refused_beside_the_new_one_and_by_subclasses() -> None:
    text = message(validate, Lantern, {"color": "red", "colour": "red"}, where="")
    assert text == "colour: is now called color; rename it"
    assert message(replace, Lantern(), "flame", 3) == "flame: is now called wick; rename it"
    assert former_names(Lantern) == {"colour": "color", "watts": "power", "flame": "wick"}


RENAMED = [
    ("rows", Crossbar, "attention.array.{}", "hardware.attention.array.{}"),
    ("g_max", Cell, "projection.array.cell.{}", "hardware.projection.array.cell.{}"),
]


@pytest.mark.parametrize(("new", "cls", "path", "in_study"), RENAMED)
def test_a_renamed_key_is_refused_in_paths_and_studies(
    new: str, cls: type[Spec], path: str, in_study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, "renamed", {"former": new})
    path, in_study, refused = path.format("former"), in_study.format("former"), f"is now called {new}; rename it"
    assert message(replace, BASE, path, 1) == f"{path}: {refused}"
    assert message(read_costs, "bert_base", [f"{in_study}=1"]).endswith(f"{in_study}: {refused} (set by --set)")


def test_renamed_keys_of_studies_and_rules_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cls, new in ((CostOptions, "rate"), (Rule, "array"), (Whole, "cost")):
        monkeypatch.setattr(cls, "renamed", {"former": new})
    file = tmp_path / "study.toml"
    study = 'name = "x"\n[model]\nsource = "shapes:bert-base"\n[hardware]\nbase = "nvm_ideal"\n'
    for text, path, new in (
        ("[cost]\nformer = 1", "cost.former", "rate"),
        ('[rules]\n"x.*" = { former = 1 }', "rules.x.*.former", "array"),
        ("[former]\nrate = 1", "former", "cost"),
        ('[sweep]\n"cost.former" = [1, 2]', "cost.former", "rate"),
        ('[sweep]\n"former.rate" = [1, 2]', "former.rate", "cost"),
    ):
        file.write_text(study + text)
        said = message(read_costs, str(file), [])
        assert said.startswith(f"{file}: ")
        assert path in said
        assert f"is now called {new}; rename it" in said
    file.write_text(study)
    for path, new in (("cost.former", "rate"), ("former.rate", "cost")):
        assert f"is now called {new}; rename it" in message(read_costs, str(file), [f"{path}=1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bits = [4, 8]", "bits = [4, 8]: must be a whole number; give one value; only [sweep] takes several"),
        ("bits = 8.0", "bits = 8.0: must be a whole number; write 8"),
        ("bits = 1e300", "bits = 1e+300: must be a whole number; write one without quotes and decimals"),
        ('bits = "08"', "bits = '08': must be a whole number; write it without leading zeros"),
        ('"cell.write_noise" = "none"', "or 'table'; write { kind = 'none' }"),
        ('"cell.write_noise" = 3', "or 'table'; write { KEY = VALUE }"),
    ],
)
def test_the_remedy_for_a_value_of_another_type_works_as_written(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f'[array]\nbase = "clipformer_2024"\n{line}\n')
    with pytest.raises(BadInput) as caught:
        load(Crossbar, str(file))
    assert str(caught.value).endswith(message)
