"""Numbers without a unit in files: the remedy of the message is accepted by the same field."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from pydantic import Field

from ohmformer.errors import BadInput
from ohmformer.quantities import Clock, Count, Duration, Hertz, Joules, JoulesPerByte
from ohmformer.schema import Spec, validate


class Fields(Spec):
    rate: Annotated[Hertz, Field(gt=0)] = 1.0
    clock: Annotated[Clock, Field(gt=0)] = 1e9
    time: Annotated[Duration, Field(gt=0)] = 1.0
    energy: Joules = 1.0e-12
    per_byte: JoulesPerByte = 1.0e-12
    count: Count = 1


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
