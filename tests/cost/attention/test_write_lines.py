"""Keys and values are written by rows, by columns, or as rows of transposable arrays: time, energy, area and wear."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

import pytest

import ohmformer as of
from ohmformer.array.prices.array_laws import NoArrayLaw
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import write_cost
from ohmformer.cost.attention.write_lines import matrix_lines
from ohmformer.cost.placement import Placement, place
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.cost.stage import Stage
from ohmformer.cost.weight_programming import programming
from ohmformer.dataflow import closed_form
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.dataflow.timeline import build_timeline
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import plan
from ohmformer.workload.shapes import Transformer, shapes


def machine(name: str = "clipformer_tcad_2024", **changes: Any) -> Accelerator:
    found = of.load(name)
    assert isinstance(found, Accelerator)
    for field, value in changes.items():
        found = of.replace(found, f"attention.{field.replace('__', '.')}", value)
    return found


def write_stage(placement: Placement) -> Stage:
    return next(stage for stage in placement.layers[1].stages if stage.name == "write")


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("rows", "rows", 128),
        ("columns", "rows", 1),
        ("transposable", "rows", 1),
        ("columns", "columns", 64),
        ("rows", "columns", 128),
    ],
)
def test_a_decoded_token_takes_a_line_or_one_line_for_each_feature(key: str, value: str, lines: int) -> None:
    """Llama-3-8B has heads of 128 features; arrays of 64 x 64 hold a head in two, which are written at once."""
    hardware = machine(key__write_lines=key, value__write_lines=value)
    assert isinstance(hardware.attention.key, ArrayEngine)
    expected = lines if hardware.attention.key.array.rows >= lines else hardware.attention.key.array.rows
    placement = place(shapes("llama-3-8b", phase="decode", context=300), hardware)
    assert write_stage(placement).time(1) == pytest.approx(expected * 85.7e-9, rel=1e-3)


@pytest.mark.parametrize(("block", "by_rows", "by_columns"), [(16, 64, 16), (64, 64, 64), (100, 64, 64)])
def test_a_block_of_keys_takes_all_rows_or_a_column_for_each_token(block: int, by_rows: int, by_columns: int) -> None:
    """Heads of 64 features on arrays of 64 x 64; the tokens beyond 64 are in other arrays, written at the same time."""
    for lines, count in (("rows", by_rows), ("columns", by_columns), ("transposable", by_columns)):
        stage = write_stage(place(shapes("bert-base", tokens=200), machine(key__write_lines=lines)))
        values = min(block, 64)
        assert stage.time(block) == pytest.approx(max(count, values) * 85.7e-9, rel=1e-3)


def test_energy_events_and_wear_do_not_depend_on_the_lines() -> None:
    """Cells beside the selected line are not written, so each cell is written once for a token."""
    for sizes in ({"tokens": 100}, {"phase": "decode", "context": 77, "batch": 2}):
        work = shapes("gpt2", **sizes)  # type: ignore[arg-type]
        found = [place(work, machine(write_lines=lines)) for lines in ("rows", "columns", "transposable")]
        assert found[0].counts == found[1].counts == found[2].counts
        assert found[0].energy == pytest.approx(found[1].energy)
        assert found[0].energy == pytest.approx(found[2].energy)
        wears = [[(one.role, one.max_writes, one.mean_writes) for one in each.wear] for each in found]
        assert wears[0] == wears[1] == wears[2]


def test_a_transposable_array_has_a_second_set_of_drivers_converters_and_adders() -> None:
    plain, double = machine(), machine(key__write_lines="transposable")
    work = shapes("bert-base", tokens=128)
    one, two = place(work, plain), place(work, double)
    array = plain.attention.array
    prices, size = priced(array, "attention.key"), array.columns
    second = size * (prices.dac_area + prices.sample_area) + prices.shift_add_area
    second += -(-size // array.adc.columns_per_adc) * prices.adc_area
    assert plain.chip is not None
    per_tile = plain.chip.arrays_per_core * plain.chip.cores_per_tile
    tiles = -(-two.arrays["attention.key"] // per_tile)
    assert double.attention.key != plain.attention.key
    apart = tiles + -(-one.arrays["attention.value"] // per_tile)
    together = -(-(one.arrays["attention.key"] + one.arrays["attention.value"]) // per_tile)
    assert two.tiles - one.tiles == apart - together, "tiles hold arrays of one kind"
    shell = (one.area - 0) / one.tiles  # all tiles of ClipFormer hold arrays of the same area
    assert two.area - one.area == pytest.approx(tiles * per_tile * second + (apart - together) * shell, rel=1e-6)
    for lines in ("rows", "columns"):
        assert place(work, machine(key__write_lines=lines)).area == one.area


def test_the_reference_column_of_keys_is_one_more_line() -> None:
    """X-Former's SRAM keeps Q and a reference in columns: 128 + 1 of them, beside V in 128 rows."""
    work = shapes("bert-base", tokens=128)
    by_rows = write_stage(place(work, machine("xformer_tvlsi_2023")))
    by_columns = write_stage(place(work, machine("xformer_tvlsi_2023", key__write_lines="columns")))
    values = write_stage(place(work, machine("xformer_tvlsi_2023", value__write_lines="columns")))
    times = [stage.time(128) * 1e9 for stage in (by_rows, by_columns, values)]
    assert times == pytest.approx([128, 129, 65])


def test_columns_of_an_array_that_is_not_square_follow_its_law() -> None:
    """A column of 256 cells drives 64 bit lines, as rows of an array of 64 x 256 do: 1 - s + s 64 / R0."""
    array = machine("nvm_ideal").attention.array
    assert isinstance(array, Crossbar)
    wide = of.replace(of.replace(array, "rows", 256), "columns", 64)
    turned = of.replace(of.replace(array, "rows", 64), "columns", 256)
    cells = plan(64, 256, wide)
    found = write_cost(cells, "attention.key", lines="columns")
    expected = write_cost(with_fields(cells, array=turned), "attention.key")
    assert found.total == pytest.approx(expected.total)
    assert found.interval == pytest.approx(expected.interval)
    share = 0.05
    assert found.total / cells.cells == pytest.approx(1.38e-12 * (1 - share + share * 64 / 128))


def test_weights_are_programmed_by_columns_in_as_many_writes_as_the_fullest_array_has_columns() -> None:
    """40 inputs of the last product, and 64 of the 72 outputs of the first, are the most lines of an array."""
    table = Transformer(title="s", kind="encoder", layers=1, width=24, heads=2, hidden=40, fused=True, tokens=8)
    plain = machine()
    turned = of.replace(
        of.replace(plain, "projection.write_lines", "columns"), "projection.array", plain.attention.array
    )
    times = [
        programming(shapes(table), one).latency
        for one in (of.replace(turned, "projection.write_lines", "rows"), turned)
    ]
    assert times == pytest.approx([40 * 85.7e-9, 64 * 85.7e-9], rel=1e-3)


@pytest.mark.parametrize(("lines", "keys", "values"), [("rows", 30, 50), ("columns", 51, 31), ("transposable", 51, 50)])
def test_a_whole_matrix_takes_as_many_lines_as_an_array_has_of_it(lines: str, keys: int, values: int) -> None:
    """50 tokens with 30 features, and a reference column."""
    engine = machine(write_lines=lines, array__encoding="offset").attention.key
    assert isinstance(engine, ArrayEngine)
    assert matrix_lines(plan(50, 30, engine.array), engine, tokens_in_columns=True) == keys
    assert matrix_lines(plan(30, 50, engine.array), engine) == values


@pytest.mark.parametrize("lines", ["columns", "transposable"])
@pytest.mark.parametrize("sizes", [("bert-base", {"tokens": 150, "batch": 2}), ("gpt2", {"tokens": 70})])
def test_event_engine_and_closed_form_agree(lines: str, sizes: tuple[str, dict[str, int]]) -> None:
    name, numbers = sizes
    made = place(shapes(name, **numbers), machine("nvm_ideal", key__write_lines=lines, value__write_lines="columns"))  # type: ignore[arg-type]
    for flow in (LayerSerial(), SequenceBlocking(block=32), LayerOverlap(block=32)):
        assert closed_form.latency(made, flow) == pytest.approx(build_timeline(made, flow).latency, rel=1e-9)


def test_lines_do_not_change_what_is_computed() -> None:
    """The key of an accuracy result does not hold them."""
    plain = machine()
    for lines in ("columns", "transposable"):
        assert machine(write_lines=lines).physical() == plain.physical()


def _included(hardware: Accelerator) -> Accelerator:
    return of.replace(hardware, "attention.key.array.cost.dac_area", "included")


def _published_at_64_by_128() -> Accelerator:
    """Arrays of 64 x 128, at whose size all prices are published, without a law."""
    hardware = machine(key__array__columns=128)
    array = hardware.attention.key.array  # type: ignore[union-attr]
    assert array.cost is not None
    at = array.cost.priced_at.model_copy(update={"columns": 128})
    cost = array.cost.model_copy(update={"priced_at": at, "law": NoArrayLaw()})
    key = hardware.attention.key.model_copy(
        update={"write_lines": "columns", "array": array.model_copy(update={"cost": cost})}
    )
    return hardware.model_copy(update={"attention": hardware.attention.model_copy(update={"key": key})})


WIDE = of.replace(machine().attention.array, "columns", 128)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: machine(key__write_lines="diagonal"), "attention.key.write_lines.*'diagonal'.*rows"),
        (
            lambda: of.replace(machine(key__write_lines="transposable"), "attention.key.array.columns", 128),
            "write_lines = 'transposable': array.rows = 64 and array.columns = 128.*as many rows as columns",
        ),
        (
            lambda: of.replace(machine(), "projection.write_lines", "transposable"),
            "projection.write_lines = 'transposable': .*take 'rows' or 'columns'",
        ),
    ],
)
def test_lines_that_no_array_has_are_refused_where_hardware_is_made(change: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        change()


@pytest.mark.parametrize(
    ("hardware", "rules", "said"),
    [
        (
            _included(machine(key__write_lines="transposable")),
            None,
            "hardware.attention.array.cost.dac_area = 'included': write_lines = 'transposable' .*state it apart",
        ),
        (
            of.replace(
                machine(key__write_lines="columns"),
                "attention.key.array.write_verify",
                {"writes": 4, "tolerance": 0.05},
            ),
            None,
            "hardware.attention.key.write_lines = 'columns': verified writes .*take 'rows' or 'transposable'",
        ),
        (
            _published_at_64_by_128(),
            None,
            "hardware.attention.key.write_lines = 'columns': .*no law carries it over to columns of 64.*take",
        ),
        (
            machine(key__write_lines="transposable"),
            {"*": Rule(array=WIDE)},
            "rules: an array of 64 x 128 on hardware.attention.key, whose write_lines = 'transposable': .*take an",
        ),
    ],
)
def test_lines_without_a_price_are_one_line(hardware: Accelerator, rules: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        place(shapes("bert-base", tokens=64), hardware, rules=rules)
    assert "\n" not in str(caught.value)


def test_turns_of_unequal_lengths_take_the_time_of_the_slower_write() -> None:
    """K in 3 cells, V with cells for all tokens: a block of 16 tokens takes six turns of K, whatever follows it."""
    hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.key.resident", 3)
    for tokens in (17, 18, 33):
        placed = of.place(of.shapes("bert-base", tokens=tokens), hardware)
        write = next(stage for stage in placed.layers[1].stages if stage.name == "write")
        again = of.replace(hardware, "attention.value.resident", 3)
        equal = next(
            s for s in of.place(of.shapes("bert-base", tokens=tokens), again).layers[1].stages if s.name == "write"
        )
        assert [write.time(n) for n in (1, 3, 7, 16, tokens)] == pytest.approx(
            [equal.time(n) for n in (1, 3, 7, 16, tokens)]
        )


@pytest.mark.parametrize("tokens", [64, 128, 512, 1024])
@pytest.mark.parametrize(("write_lines", "beside"), [("rows", 0), ("columns", 1), ("transposable", 1)])
def test_the_arrays_of_a_long_sequence_are_written_at_the_same_time(tokens: int, write_lines: str, beside: int) -> None:
    """GPT-2 on arrays of 128 lines: no more than 128 lines and a reference, where one of K and V goes by feature."""
    hardware = of.replace(of.load("nvm_ideal"), "attention.write_lines", write_lines)
    shared = of.replace(hardware, "attention.arrays", "shared")
    line = 85.7e-9
    prefill = of.simulate(of.shapes("gpt2", tokens=tokens), hardware)
    step = of.simulate(of.shapes("gpt2", phase="decode", context=tokens - 1), shared)
    for run, new in ((prefill, tokens), (step, 1)):
        (write,) = (stage for stage in run.placement.layers[1].stages if stage.name == "write")
        assert write.time(new) == pytest.approx((min(tokens, 128) + beside) * line, rel=1e-12)
