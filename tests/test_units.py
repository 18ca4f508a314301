"""Quantities at the edge."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer import units

PARSED = [
    ("2 pJ", "J", 2e-12),
    ("10uS", "S", 10e-6),
    ("10 \u00b5S", "S", 10e-6),
    ("10 \u03bcS", "S", 10e-6),
    ("1.38 pJ", "J", 1.38e-12),
    ("100 kohm", "ohm", 1e5),
    ("100 kOhm", "ohm", 1e5),
    ("1 M\u03a9", "ohm", 1e6),
    ("0 S", "S", 0.0),
    ("-.5e1 mV", "V", -5e-3),
    ("26.2144 um^2", "m^2", 26.2144e-12),
    ("1 mm^2", "m^2", 1e-6),
    ("0.5 %", "%", 0.005),
    ("3 percent", "%", 0.03),
    ("2 h", "s", 7200.0),
    ("3 days", "s", 259200.0),
    ("1 min", "s", 60.0),
    ("250 ns", "s", 250e-9),
    (" 1 GHz ", "Hz", 1e9),
]


@pytest.mark.parametrize(("text", "unit", "value"), PARSED)
def test_parsed_is_exactly_the_literal(text: str, unit: str, value: float) -> None:
    assert units.parse(text, unit) == value


REFUSED = [
    ("10", "S", "has no unit; write a number and a unit, such as '10 uS'"),
    ("10 uA", "S", "has the unit 'uA' where S is expected; write it in S, such as '10 uS'"),
    ("10 xS", "S", "has the unit 'xS' where S is expected"),
    ("5 %", "S", "has the unit '%' where S is expected"),
    ("5 S", "%", "has the unit 'S' where % is expected"),
    ("about 3 S", "S", "is not a quantity; write a number and a unit, such as '10 uS'"),
    ("10 S", "ohm", "write it in ohm, such as '100 kohm'"),
    ("10 S", "K", "write it in K or degC, such as '300 K'"),
    ("85 C", "K", "where K or degC is expected"),
    ("85", "K", "has no unit; write '85 degC' or '85 K'"),
    ("-5", "K", "has no unit; write '-5 degC'"),
    ("1e9", "K", "has no unit; write a number and a unit, such as '300 K'"),
    ("", "s", "is not a quantity"),
    ("nan S", "S", "is not a quantity"),
    ("3 4 S", "S", "is not a quantity"),
]


@pytest.mark.parametrize(("text", "unit", "reason"), REFUSED)
def test_what_is_no_quantity_says_why(text: str, unit: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        units.parse(text, unit)


SHOWN = [
    (2e-12, "J", "2 pJ"),
    (999.96e-9, "S", "1 uS"),
    (26.2e-12, "m^2", "26.2 um^2"),
    (1e-6, "m^2", "1 mm^2"),
    (0.0, "S", "0 S"),
    (-3e-9, "s", "-3 ns"),
    (0.0125, "%", "1.25 %"),
    (1.0, "V", "1 V"),
    (math.inf, "s", "inf s"),
]


@pytest.mark.parametrize(("value", "unit", "text"), SHOWN)
def test_shown(value: float, unit: str, text: str) -> None:
    assert units.show(value, unit) == text


@given(st.floats(1e-14, 1e13), st.sampled_from(["S", "J", "s", "m^2", "ohm", "%"]))
def test_what_is_shown_is_parsed_again(value: float, unit: str) -> None:
    assert units.parse(units.show(value, unit), unit) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("unit", ["S", "ohm", "V", "A", "J", "W", "s", "Hz", "m^2", "%"])
def test_the_remedy_is_a_quantity_of_that_unit(unit: str) -> None:
    with pytest.raises(ValueError, match="such as") as caught:
        units.parse("something", unit)
    assert units.parse(str(caught.value).split("'")[1], unit) > 0


@pytest.mark.parametrize(
    ("text", "count"), [("80 GB", 80e9), ("80 GiB", 80 * 2**30), ("512KiB", 2**19), ("1.5 TiB", 1.5 * 2**40)]
)
def test_bytes_have_decimal_and_binary_prefixes(text: str, count: float) -> None:
    assert units.parse(text, "B") == count


@pytest.mark.parametrize(("text", "unit"), [("80 GiB", "B/s"), ("80 Gib", "B"), ("80 Ki", "B"), ("80 GiS", "S")])
def test_binary_prefixes_are_for_bytes_alone(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match="has the unit"):
        units.parse(text, unit)


@pytest.mark.parametrize("unit", units.LIMITS)
def test_an_example_of_a_unit_is_accepted(unit: str) -> None:
    example = units._example(unit).strip("'")
    assert units.check_magnitude(units.parse(example, unit), unit) > 0


@pytest.mark.parametrize("number", ["0", "-5", "0.001", "1000", "1e300", "1e400"])
@pytest.mark.parametrize("unit", ["S", "Hz", "s", "J", "J/B"])
def test_the_remedy_for_a_number_without_a_unit_works_when_followed(number: str, unit: str) -> None:
    with pytest.raises(ValueError, match="has no unit") as caught:
        units.parse(number, unit)
    advised = re.findall("'(.*?)'", str(caught.value))[-1]
    assert units.check_magnitude(units.parse(advised, unit), unit) > 0


@pytest.mark.parametrize(
    ("area", "text"),
    [(61.5e-6, "61.5 mm²"), (3806.4e-6, "3,806 mm²"), (0.0217, "21,700 mm²"), (0.0, "0 mm²"), (2.5e-9, "0.0025 mm²")],
)
def test_areas_in_square_millimeters_have_no_exponent(area: float, text: str) -> None:
    assert units.square_mm(area) == text
