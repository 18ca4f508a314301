"""Provenance: where the values of a specification come from.

In a file, a value with a source is a table: `g_min = { value = "0.1 uS", source = "paper2024", where = "Table I" }`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ohmformer.errors import fault_of

Kind = Literal["published", "derived", "reconstructed", "assumed", "user"]


class Source(BaseModel):
    """The source of one value.

    Attributes:
        source: citation key in sources.bib.
        where: place in the cited work, such as a table or an equation.
        how: how the value was derived from it.
        kind: how certain the value is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    source: str = ""
    where: str = ""
    how: str = ""
    kind: Kind = "published"


_QUANTITY = re.compile(r"\s*[-+]?(\.?\d|inf)", re.IGNORECASE)
"""How a quantity in quotes begins, such as "1 uS" or "3 %"."""

Provenance = tuple[tuple[str, Source], ...]
"""The sources of the values of a specification: (field, source) of each value with a known source, sorted by field."""


def as_provenance(sources: Mapping[str, Source]) -> Provenance:
    """Field -> source as a sorted tuple, which can be hashed."""
    return tuple(sorted(sources.items(), key=itemgetter(0)))


def is_stated(value: object) -> bool:
    """True if a value without a source is one that its author stated: a number, a quantity, a switch, a list of them.

    Names (of kinds, of library entries) and tables are not: they say which values there are.
    """
    if isinstance(value, str):
        return _QUANTITY.match(value) is not None
    if isinstance(value, (list, tuple)):
        return any(map(is_stated, value))
    return isinstance(value, (bool, int, float))


def read_source(table: dict[str, Any], key: str) -> Source:
    """The source of the field `key`, from the table of its value without the key `value`.

    Without `kind`, a value with `how` is derived, one with `source` is published, and any other is the user's.

    Raises:
        Misplaced: a key of the table does not fit.
    """
    table.setdefault("kind", "derived" if "how" in table else "published" if "source" in table else "user")
    try:
        return Source.model_validate(table)
    except ValidationError as error:
        raise fault_of(error, Source, table).below(key) from None
