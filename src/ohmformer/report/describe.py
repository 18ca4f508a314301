"""A specification as rows that a person reads: every value with its unit and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo
from rich.table import Table

from ohmformer import units
from ohmformer.provenance import Source
from ohmformer.schema import Spec, walk


def spec_table(spec: Spec, title: str, *, sources: bool = False) -> Table:
    """Path, value, kind and source of every value; with `sources` also the place in the source and the derivation."""
    table = Table(title=title, title_justify="left")
    for column in ("field", "value", "kind", "source", *(["where, how"] if sources else [])):
        table.add_column(column, overflow="fold")
    for path, value, source in walk(spec):
        origin = source or Source()
        kind = origin.kind if source else "" if isinstance(value, str) else "default"
        where = "; ".join(part for part in (origin.where, origin.how) if part)
        table.add_row(path, friendly(spec, path, value), kind, origin.source, *([where] if sources else []))
    return table


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
    field = type(spec).model_fields[name]
    return next(_units(field), "")


def _units(annotation: Any) -> Iterator[str]:
    """Units in an annotation, however deep: `Siemens | None` holds that of `Siemens`."""
    if isinstance(annotation, FieldInfo):
        extra = annotation.json_schema_extra
        if isinstance(extra, dict) and "unit" in extra:
            yield str(extra["unit"])
        yield from _units(annotation.annotation)
    for inner in get_args(annotation):
        yield from _units(inner)
