"""Values of a specification as files write them. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic.fields import FieldInfo

from ohmformer import units
from ohmformer.schema import Spec


def friendly(spec: Spec, path: str, value: Any) -> str:
    """A value as it would be written in a file."""
    return _in_unit(value, unit_of(spec, path))


def _in_unit(value: Any, unit: str) -> str:
    """A value with its unit; a list of quantities in brackets."""
    if unit and isinstance(value, float):
        return units.show(value, unit)
    if isinstance(value, tuple) and not any(isinstance(item, Spec) for item in value):
        return f"[{', '.join(_in_unit(item, unit) for item in value)}]"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def unit_of(spec: Spec, path: str) -> str:
    """The SI unit of the field at a dotted path; empty for plain numbers and text."""
    *parents, name = path.split(".")
    for parent in parents:
        spec = getattr(spec, parent)
    return _unit(type(spec), name)


@cache
def _unit(cls: type[Spec], name: str) -> str:
    return next(_units(cls.model_fields[name]), "")


def _units(annotation: Any) -> Iterator[str]:
    """Units in an annotation, however deep: `Siemens | None` holds that of `Siemens`."""
    if isinstance(annotation, FieldInfo):
        extra = annotation.json_schema_extra
        if isinstance(extra, dict) and "unit" in extra:
            yield str(extra["unit"])
        yield from _units(annotation.annotation)
    for inner in get_args(annotation):
        yield from _units(inner)
