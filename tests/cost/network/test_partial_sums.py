"""Partial sums of row blocks: where they are added, what they weigh, and what moving them costs."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.cost.network.partial_sums import _crossing, sum_bytes
from ohmformer.cost.placement import place
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mapping.planning import plan
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

PUMA = load(Accelerator, "puma_asplos_2019")
MOVES = ("register", "buffer", "bus", "network")


def moved(hardware: Accelerator, model: str = "bert-base", tokens: int = 64) -> dict[str, float]:
    """The energy of moving values in the stages of projections of one layer [J]."""
    layer = place(shapes(model, tokens=tokens), hardware).layers[1]
    stages = [stage for stage in layer.stages if stage.engine == "projection"]
    return {name: sum(stage.energy[name] for stage in stages) for name in MOVES}


def test_bert_base_by_hand() -> None:
    """Crossbars of 128 rows in cores of 6 and tiles of 48; 4 slices of a row block are side by side.

    768 inputs: 6 row blocks, 24 arrays, so a column block fills 4 cores of a tile: of 5 sums, 2 stay in their core and
    3 go to another one. 3072 inputs: 24 row blocks, 96 arrays in 16 cores of two tiles: of 23 sums, 15 go to another
    core and 1 of these to another tile.
    """
    tokens, width = 64, 2
    outputs, wide = 3 * 768 + 768 + 3072, 768
    results = tokens * (outputs + wide)
    inputs = tokens * (3 * 768 + 768 + 768 + 3072)
    sums = tokens * width * (5 * outputs + 23 * wide)
    to_cores = tokens * width * (3 * outputs + 15 * wide)
    to_tiles = tokens * width * wide
    found = moved(PUMA, tokens=tokens)
    assert found["register"] == pytest.approx((inputs + results + sums + to_cores) * 0.27e-12, rel=1e-12)
    assert found["buffer"] == pytest.approx((inputs + results + 2 * to_cores) * 0.5375e-12, rel=1e-12)
    assert found["bus"] == pytest.approx((inputs + results + 2 * to_cores) * 0.09375e-12, rel=1e-12)
    assert found["network"] == pytest.approx((results + to_tiles) * 4.03e-12, rel=1e-12)
    assert 5 * outputs + 23 * wide == 7 * (outputs + wide)


def test_one_row_block_has_no_sums_to_move() -> None:
    tall = replace(PUMA, "projection.array.rows", 4096)
    tall = replace(tall, "projection.array.adc.bits", 13)
    tokens = 64
    results, inputs = tokens * (3 * 768 + 768 + 3072 + 768), tokens * (3 * 768 + 768 + 768 + 3072)
    assert moved(tall, tokens=tokens)["register"] == pytest.approx((inputs + results) * 0.27e-12, rel=1e-12)


def test_all_that_fits_into_one_core_passes_registers_alone() -> None:
    wide = replace(PUMA, "chip.arrays_per_core", 4 * 24 * 24)
    plain, found = moved(replace(PUMA, "chip.partial_sum_bits", 1)), moved(wide)
    results, inputs = 64 * (3 * 768 + 768 + 3072 + 768), 64 * (3 * 768 + 768 + 768 + 3072)
    assert found["buffer"] == pytest.approx((inputs + results) * 0.5375e-12, rel=1e-12)
    assert found["network"] == pytest.approx(results * 4.03e-12, rel=1e-12)
    assert found["register"] > (inputs + results) * 0.27e-12
    assert plain["buffer"] > found["buffer"]


def test_width_is_that_of_registers_or_of_the_exact_sum() -> None:
    assert isinstance(PUMA.projection, ArrayEngine)
    assert PUMA.chip is not None
    array = PUMA.projection.array
    exact = replace(PUMA, "chip.partial_sum_bits", None).chip
    assert exact is not None
    for inputs in (129, 768, 3072, 5000):
        matrices = plan(64, inputs, array)
        assert sum_bytes(matrices, PUMA.chip) == 2
        assert sum_bytes(matrices, exact) == ceil((array.bits + array.inputs.bits + log2(inputs)) / 8)


@given(
    rows=st.integers(2, 40),
    stride=st.integers(1, 20),
    columns=st.integers(1, 60),
    core=st.integers(1, 24),
    cores=st.integers(1, 12),
)
def test_shares_are_those_of_counting_every_row_block(
    rows: int, stride: int, columns: int, core: int, cores: int
) -> None:
    cores_left = tiles_left = 0
    for column in range(columns):
        first = [(column * rows + row) * stride for row in range(rows)]
        cores_left += len({place // core for place in first}) - 1
        tiles_left += len({place // (core * cores) for place in first}) - 1
    sums = columns * (rows - 1)
    assert _crossing(rows, stride, columns, core, core * cores) == (cores_left / sums, tiles_left / sums)


def test_causal_products_move_the_sums_of_the_keys_that_are_seen() -> None:
    """V of 300 tokens on 128 rows: a query adds ceil(n / 128) - 1 sums; those of 300 queries are 172 + 44."""
    hardware = load(Accelerator, "nvm_ideal")
    free = dict.fromkeys(("buffer_energy", "bus_energy", "network_energy"), "included")
    for name, value in free.items():
        hardware = replace(hardware, f"chip.{name}", value)
    huge = replace(hardware, "chip.arrays_per_core", 10**6)
    layer = place(shapes("gpt2", tokens=300), huge).layers[1]
    value = next(part for stage in layer.stages for part in stage.parts if part.name == "value")
    seen = 300 * 301 // 2
    moved_bytes = 12 * (seen + 300 * 64) + 300 * 768 + 2 * 12 * 64 * (172 + 44)
    assert value.energy["register"] == pytest.approx(moved_bytes * 0.27e-12, rel=1e-12)
