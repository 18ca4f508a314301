"""A specification as rows that a person reads: every value with its unit and where it comes from."""

from __future__ import annotations

from rich.table import Table

from ohmformer.provenance import Source
from ohmformer.schema import Spec, walk
from ohmformer.study.record.written import friendly


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
