"""Base class of all tables of a result: immutable pydantic models with checked values. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from ohmformer.array.spec import Level
from ohmformer.errors import BadInput
from ohmformer.registry import named
from ohmformer.streams.backends import Kernels
from ohmformer.tasks.metric_kinds import Metric

Finite = Annotated[float, Field(allow_inf_nan=False), Strict()]


def is_number(value: Any) -> bool:
    """True for a finite number that is not a truth value."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number above all floats
        return False


def _checked_number(value: Any) -> float:
    """The value itself, so that a whole number stays one: a file that is read and written again keeps its digits."""
    if not is_number(value):
        raise PydanticCustomError("finite_number", "Input should be a finite number")
    return value  # type: ignore[no-any-return]


Number = Annotated[float, PlainValidator(_checked_number), WithJsonSchema({"type": "number"})]
"""A finite number; unlike `Finite` it may be an int."""


def _checked_numbers(value: Any) -> tuple[float, ...]:
    """The values themselves, all at once, since a result has one for each sample."""
    try:
        kinds = set(map(type, value)) if isinstance(value, (list, tuple)) else {type(value)}
        if all(issubclass(kind, (int, float)) and kind is not bool for kind in kinds) and all(
            map(math.isfinite, value)
        ):
            return tuple(value)
    except (OverflowError, TypeError):  # a whole number above all floats, or a single number
        pass
    raise PydanticCustomError("finite_number", "Input should be a finite number")


Numbers = Annotated[
    tuple[float, ...],
    PlainValidator(_checked_numbers),
    WithJsonSchema({"type": "array", "items": {"type": "number"}}),
]
"""Finite numbers, each as in `Number`."""

Count = Annotated[int, Field(ge=0), Strict()]


def _text(value: Any) -> str:
    """The value itself; unlike pydantic's own strings, it may hold letters that UTF-8 has no bytes for."""
    if not isinstance(value, str):
        raise PydanticCustomError("text", "Input should be a valid string")
    return value


Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]


class Part(BaseModel):
    """A table of a document: immutable, without keys that its type does not declare.

    Attributes:
        omitted_at_default: fields that are not written where they have their default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    omitted_at_default: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        fields = {name: type(self).model_fields[name] for name in self.omitted_at_default}
        absent = {field.alias or name for name, field in fields.items() if getattr(self, name) == field.default}
        return {key: value for key, value in write(self).items() if key not in absent}


def metric_named(name: str) -> Metric:
    """The metric of a name. It is made once, since it never changes, and each value of a result asks for it."""
    kind: Any = named(Metric, name, "metric")
    return _made_once(kind)


@cache
def _made_once(kind: Any) -> Metric:
    metric: Metric = kind()
    return metric


P = TypeVar("P", bound=Part)


def made(cls: type[P], place: str = "", /, **values: Any) -> P:
    """A result of computed values.

    Args:
        cls: its type.
        place: what stands before the names of its fields in messages, such as `energy_by.`.
        values: of its fields.

    Raises:
        BadInput: a value is not finite, or contradicts another one; one line with its path.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        field, reason = first_fault(error)
        where = f"{place}{field}"
        if reason == "Input should be a finite number":
            raise BadInput(f"{where} is not finite; correct the numbers of the hardware that it is made of") from None
        raise BadInput(f"{where}: {reason}; correct the numbers of the hardware that it is made of") from None


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Dotted path and message of the first fault that a type found."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def level_words(level: Level, kernels: Kernels) -> str:
    """How hardware was simulated, for readers: 'level array', or 'level array with compiled kernels'."""
    how = {"torch": "", "compiled": " with compiled kernels", "amx": " with compiled kernels and AMX"}
    return f"level {level}{how[kernels]}"
