"""Laws of converters: their published figures, exactness at the published point, and growth with bits and rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array.prices.converter_laws import (
    AdcLaw,
    BitLineSar,
    CapacitorSar,
    Converter,
    Flash,
    LinearConverter,
    Sar,
    Survey,
)

LAWS = (Sar(), BitLineSar(), CapacitorSar(), Flash(), Survey(), LinearConverter())
ISAAC = Converter(1.5625e-12, 0.78125e-9, 1200e-12)
resolutions = st.integers(1, 16)


@given(bits=resolutions, law=st.sampled_from(LAWS))
def test_a_published_converter_is_exact_at_its_own_bits(bits: int, law: AdcLaw) -> None:
    assert law.scaled(ISAAC, bits, bits) == ISAAC


@given(old=resolutions, bits=st.integers(1, 15), law=st.sampled_from(LAWS))
def test_more_bits_cost_more(old: int, bits: int, law: AdcLaw) -> None:
    less, more = (law.scaled(ISAAC, old, count) for count in (bits, bits + 1))
    assert more.energy > less.energy > 0
    assert more.time >= less.time > 0
    assert more.area >= less.area > 0


def test_the_model_of_zigzag_by_hand() -> None:
    """At 8 bits, 128 rows and 0.9 V: 0.70 pJ, 11.8 ns, 2,085 um^2."""
    found = BitLineSar().figures(8)
    assert found.energy == pytest.approx(0.8655 * 0.81e-12, rel=1e-3)
    assert found.time == pytest.approx(11.8e-9, rel=2e-3)
    assert found.area == pytest.approx(2085e-12, rel=2e-3)


@pytest.mark.parametrize(
    ("bits", "energy", "area"),
    [(4, 0.79, 361.04), (5, 0.99, 476.91), (6, 1.20, 626.91), (7, 1.42, 845.18), (8, 1.67, 1200),
     (9, 1.969078145, 1827.911647), (10, 2.379022742, 3002.008032)],
)  # fmt: skip
def test_the_converter_of_isaac_as_others_scale_it(bits: int, energy: float, area: float) -> None:
    found = CapacitorSar().figures(bits)
    assert found.energy * 1e12 == pytest.approx(energy, rel=6e-3)
    assert found.area * 1e12 == pytest.approx(area, rel=2e-3)
    assert Sar().figures(bits).area == found.area


def test_the_survey_by_hand() -> None:
    """FoM 180.14 dB at low rates; at 1.28 GHz 302.74 - 6.461 ln f = 167.26 dB."""
    law = Survey()
    assert law.figures(8, 1e6).energy == pytest.approx(10 ** ((6.02 * 8 + 1.76 - 180.14159) / 10) / 2)
    assert law.figures(8).energy == pytest.approx(0.92e-12, rel=0.01)
    assert law.figures(10).energy == pytest.approx(16 * law.figures(8).energy, rel=2e-3)


def test_energy_is_not_linear_in_bits() -> None:
    """From 8 to 12 bits a linear rule adds 50 %; noise makes it 21 times."""
    ratios = {law.kind: law.figures(12).energy / law.figures(8).energy for law in LAWS}  # type: ignore[attr-defined]
    assert ratios["linear"] == 1.5
    assert ratios["sar"] == ratios["bit_line_sar"] == pytest.approx((1200 + 16777.216) / (800 + 65.536))
    assert ratios["capacitor_sar"] == pytest.approx(2.43, rel=0.01)
    assert ratios["flash"] > 16
    assert ratios["survey"] == pytest.approx(255, rel=0.01)


@given(bits=resolutions, rate=st.floats(1e6, 1e11))
def test_a_faster_converter_is_several_that_take_turns(bits: int, rate: float) -> None:
    own = Sar().scaled(ISAAC, 8, bits)
    fast = Sar().scaled(ISAAC, 8, bits, rate)
    assert fast.time == pytest.approx(1 / rate)
    assert fast.energy == own.energy
    assert fast.area == pytest.approx(own.area * max(1.0, rate * own.time))


def test_the_survey_charges_energy_for_speed() -> None:
    slow, fast = (Survey().scaled(ISAAC, 8, 8, rate) for rate in (1e6, 5e9))
    assert slow.energy < ISAAC.energy < fast.energy
    assert (slow.time, fast.time) == (1e-6, 2e-10)
    assert slow.area < ISAAC.area < fast.area


def test_a_flash_decides_at_once() -> None:
    law = Flash()
    assert law.figures(4).time == law.figures(10).time
    assert law.figures(5).area / law.figures(4).area == pytest.approx(31 / 15)
