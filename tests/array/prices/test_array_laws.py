"""Laws of array prices: by hand, exact at the published array, and monotone in rows, columns and bits."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array.prices.array_laws import (
    ArrayLaw,
    ArraySize,
    BinaryWeighted,
    Ladder,
    LineLaw,
    PumaTables,
)
from ohmformer.errors import BadInput
from ohmformer.registry import register

CONDUCTING = LineLaw(conduction_share=0.98)
LAWS = (LineLaw(), LineLaw(column_share=1.0), CONDUCTING, PumaTables())
counts = st.integers(1, 4096)
conductances = st.floats(1e-9, 1e-3)
sizes = st.builds(ArraySize, counts, counts, st.just(1), st.just(32.0), conductances)


def square(n: int, bits: int = 1, nm: float = 32.0) -> ArraySize:
    return ArraySize(n, n, bits, nm)


@given(size=sizes, law=st.sampled_from(LAWS), seconds=st.floats(1e-6, 1e-3))
def test_a_published_price_is_exact_at_its_own_size(size: ArraySize, law: ArrayLaw, seconds: float) -> None:
    ratios = (
        law.read_energy_ratio,
        law.write_energy_ratio,
        law.area_ratio,
        law.driver_energy_ratio,
        law.driver_area_ratio,
        law.adder_area_ratio,
    )
    assert [ratio(size, size) for ratio in ratios] == [1.0] * len(ratios)
    assert law.time(seconds, size, size) == seconds


@given(old=sizes, new=sizes, more=counts, law=st.sampled_from(LAWS))
def test_larger_arrays_cost_no_less(old: ArraySize, new: ArraySize, more: int, law: ArrayLaw) -> None:
    taller, wider = new._replace(rows=new.rows + more), new._replace(columns=new.columns + more)
    for larger in (taller, wider):
        assert law.read_energy_ratio(old, larger) > law.read_energy_ratio(old, new) > 0
        assert law.area_ratio(old, larger) > law.area_ratio(old, new) > 0
        assert law.time(1e-3, old, larger) >= law.time(1e-3, old, new)
        assert law.write_energy_ratio(old, larger) >= law.write_energy_ratio(old, new) > 0


@given(a=sizes, b=sizes, c=sizes)
def test_scaling_in_two_steps_is_scaling_once(a: ArraySize, b: ArraySize, c: ArraySize) -> None:
    law = LineLaw()
    for ratio in (law.read_energy_ratio, law.area_ratio, law.driver_energy_ratio, law.driver_area_ratio):
        assert ratio(a, b) * ratio(b, c) == pytest.approx(ratio(a, c), rel=1e-9)
    assert law.time(law.time(1e-3, a, b), b, c) == pytest.approx(law.time(1e-3, a, c), rel=1e-9)


@given(size=sizes, conductance=conductances, share=st.floats(0, 1))
def test_cells_that_conduct_more_cost_more(size: ArraySize, conductance: float, share: float) -> None:
    """V^2 G t of the share that cells conduct; the charge of the lines, the drivers, times and areas stay."""
    law, new = LineLaw(conduction_share=share), size._replace(conductance=conductance)
    assert size.conductance is not None
    ratio = conductance / size.conductance
    assert law.read_energy_ratio(size, new) == pytest.approx(1 - share + share * ratio, rel=1e-9)
    assert law.write_energy_ratio(size, new) == pytest.approx(0.05 + 0.95 * ratio, rel=1e-9)
    for unchanged in (law.area_ratio, law.driver_energy_ratio, law.driver_area_ratio, law.adder_area_ratio):
        assert unchanged(size, new) == 1.0
    assert law.time(1e-6, size, new) == 1e-6


def test_a_law_follows_conductances_if_it_knows_the_share_that_cells_conduct() -> None:
    assert CONDUCTING.follows_conductance()
    assert not LineLaw().follows_conductance()
    assert not PumaTables().follows_conductance()


def test_lines_by_hand() -> None:
    """From 128 x 128 to 256 x 512: cells by 8, drivers by 4, and rows and columns that settle."""
    law, old, new = LineLaw(), square(128), ArraySize(256, 512, 1, 32.0)
    assert law.read_energy_ratio(old, new) == 8
    assert law.area_ratio(old, new) == 8
    assert law.driver_energy_ratio(old, new) == law.driver_area_ratio(old, new) == law.adder_area_ratio(old, new) == 4
    step = 2 * log(2) * 4.4 * 0.134e-15 / 2
    assert law.time(10e-9, old, new) == pytest.approx(10e-9 + step * (256**2 + 512**2 - 2 * 128**2), rel=1e-12)
    assert law.write_energy_ratio(old, new) == pytest.approx(1.05)
    assert LineLaw(column_share=1.0).write_energy_ratio(old, new) == 2


def test_energy_of_cells_follows_the_mean_square_of_inputs() -> None:
    """Bits are 0 or 1, mean square 1/2; two-bit codes 0, 1/3, 2/3, 1 have 7/18; many levels come to 1/3."""
    law = LineLaw()
    assert law.read_energy_ratio(square(64, 1), square(64, 2)) == pytest.approx(7 / 18 / (1 / 2))
    assert law.read_energy_ratio(square(64, 1), square(64, 12)) == pytest.approx(2 / 3, rel=1e-3)


def test_a_smaller_technology_shrinks_cells_and_drivers_and_leaves_currents() -> None:
    law, old, new = LineLaw(), square(128), square(128, nm=16.0)
    assert law.area_ratio(old, new) == law.driver_area_ratio(old, new) == law.adder_area_ratio(old, new) == 0.25
    assert law.driver_energy_ratio(old, new) == 0.5
    assert law.read_energy_ratio(old, new) == 1
    assert law.time(10e-9, old, new) == 10e-9


def test_tables_of_the_simulator_of_puma() -> None:
    """xbar_pow_dict and xbar_area_dict rise by 4 for each doubling, xbar_lat_dict by 2."""
    law = PumaTables()
    power = {32: 0.01875, 64: 0.075, 128: 0.3, 256: 1.2}
    latency = {32: 32, 64: 64, 128: 128, 256: 256}
    area = {32: 1.5625e-6, 64: 6.25e-6, 128: 2.5e-5, 256: 1e-4}
    for n in power:
        old, new = square(128), square(n)
        energy = power[n] * latency[n] / (power[128] * latency[128])
        assert law.read_energy_ratio(old, new) == pytest.approx(energy)
        assert law.time(1.0, old, new) == pytest.approx(latency[n] / latency[128])
        assert law.area_ratio(old, new) == pytest.approx(area[n] / area[128])


def test_an_array_cannot_be_faster_than_its_lines() -> None:
    with pytest.raises(ValueError, match=r"^is shorter than the .* in which the lines of the published array settle"):
        LineLaw().time(1e-12, square(128), square(256))


def test_dacs_by_bits() -> None:
    assert [Ladder().units(bits) for bits in (1, 4, 8)] == [1, 4, 8]
    assert [BinaryWeighted().units(bits) for bits in (1, 4, 8)] == [1, 15, 255]


def test_a_law_of_another_package_needs_energy_and_time() -> None:
    class Half(ArrayLaw):
        kind: str = "half"

    with pytest.raises(BadInput, match="Half"):
        register(Half)
