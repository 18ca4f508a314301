"""Numbers without a unit in files: the remedy of the message is accepted by the same field."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from pydantic import Field

from ohmformer.errors import BadInput
from ohmformer.quantities import Clock, Count, Deviation, Duration, Hertz, Joules, JoulesPerByte
from ohmformer.schema import Spec, validate


class Fields(Spec):
    rate: Annotated[Hertz, Field(gt=0)] = 1.0
    clock: Annotated[Clock, Field(gt=0)] = 1e9
    time: Annotated[Duration, Field(gt=0)] = 1.0
    energy: Joules = 1.0e-12
    per_byte: JoulesPerByte = 1.0e-12
    count: Count = 1
    deviation: Deviation = 0.0


@pytest.mark.parametrize("field", ["rate", "clock", "time", "energy", "per_byte"])
@pytest.mark.parametrize("number", [0, -5, 5, 500, 1234567, 1e-9, 1e15, 1e300, "0", "5", "1e300"])
def test_a_number_without_a_unit_gets_a_remedy_that_is_accepted(field: str, number: Any) -> None:
    with pytest.raises(BadInput, match="has no unit; write ") as caught:
        validate(Fields, {field: number}, where="file")
    advised = re.findall("'(.*?)'", str(caught.value).split("has no unit")[1])[0]
    made = validate(Fields, {field: advised}, where="file")
    if advised.startswith(str(number)):
        assert getattr(made, field) == float(number)


@pytest.mark.parametrize("number", [0.0, -2.0])
def test_a_whole_float_out_of_range_is_not_repeated_as_the_remedy(number: float) -> None:
    with pytest.raises(BadInput, match=r"must be a whole number; write a whole number$"):
        validate(Fields, {"count": number}, where="file")
    with pytest.raises(BadInput, match=r"must be a whole number; write 3$"):
        validate(Fields, {"count": 3.0}, where="file")


@pytest.mark.parametrize("text", ["3 %", "3%", " 3 % ", "3.0 percent", "3percent"])
def test_a_share_may_be_written_in_percent(text: str) -> None:
    assert validate(Fields, {"deviation": text}, where="file").deviation == 0.03


@pytest.mark.parametrize("text", ["3 \u2030", "3 permille", "3 ppm", "3 uS", "3 %%"])
def test_a_share_in_another_unit_is_never_taken_for_the_number_alone(text: str) -> None:
    with pytest.raises(BadInput, match=r"where % is expected; write it in %, such as '1 %'"):
        validate(Fields, {"deviation": text}, where="file")


@pytest.mark.parametrize("text", ["0.03", "3e-2", "-.5"])
def test_a_share_without_a_unit_is_written_without_quotes(text: str) -> None:
    with pytest.raises(BadInput, match=r"without (unit and )?quotes"):
        validate(Fields, {"deviation": text}, where="file")
