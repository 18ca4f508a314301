"""The files of a paper, checked when they are read: claims.toml, and accuracies that were measured. Free of torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from ohmformer import catalog
from ohmformer.errors import BadInput

F = TypeVar("F", bound=BaseModel)

Finite = Annotated[float, Field(allow_inf_nan=False), Strict()]
Above = Annotated[float, Field(allow_inf_nan=False, gt=0), Strict()]
Text = Annotated[str, Strict()]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Fit(_Table):
    """Series, gammas and accuracies of a paper that fix sigma."""

    series: Text
    gamma: Annotated[list[Above], Field(min_length=1)]
    accuracy: Annotated[list[Finite], Field(min_length=1)]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.gamma) != len(self.accuracy):
            raise ValueError("gamma and accuracy are not equally many; pair them")
        return self


class MeasuredTable(_Table):
    """`[measured]`: what the paper says of its own accuracies."""

    reference: Text
    software: Finite
    chance: Finite
    fit: Fit


class PaperTable(_Table):
    """`[paper]`."""

    title: Text = ""
    note: Text = ""


class ClaimsFile(_Table):
    """A claims.toml; a claim is checked when it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    paper: PaperTable = PaperTable()
    runs: dict[str, dict[str, Any]] = {}
    measured: MeasuredTable | None = None
    claim: list[dict[str, Any]] = []


class SeriesTable(_Table):
    """What was measured of one model: accuracies by method and gamma."""

    software: Finite
    chance: Finite
    sigma: Above
    means: dict[str, dict[Annotated[float, Field(allow_inf_nan=False)], Finite]] = {}

    @model_validator(mode="after")
    def _learned(self) -> Self:
        if self.software <= self.chance:
            raise ValueError("software is not above chance, so that nothing can be lost")
        return self


class GainTable(_Table):
    """A paired difference of two series at one gamma, with its bounds."""

    better: Text
    than: Text
    gamma: Finite
    mean: Finite
    low: Finite
    high: Finite


class AccuracyFile(_Table):
    """An accuracy.json."""

    series: dict[str, SeriesTable] = {}
    gains: list[GainTable] = []


def read_claims(file: Path) -> ClaimsFile:
    """A claims.toml.

    Raises:
        BadInput: it cannot be read, or does not hold what it should; one line with file and place.
    """
    return _checked(ClaimsFile, catalog.read(file), str(file))


def read_accuracies(file: Path) -> AccuracyFile:
    """An accuracy.json; nothing, where there is none.

    Raises:
        BadInput: as `read_claims`.
    """
    if not os.path.lexists(file):
        return AccuracyFile()
    if not os.path.isfile(file):
        raise BadInput(f"{file}: is no file; make it again with rescue.py")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: is no JSON ({error}); make it again with rescue.py") from error
    return _checked(AccuracyFile, content, str(file))


def check_measured(table: Any) -> MeasuredTable:
    """`[measured]` of a claims.toml.

    Raises:
        BadInput: a key is missing or wrong.
    """
    return table if isinstance(table, MeasuredTable) else _checked(MeasuredTable, table, "", "measured")


def _checked(cls: type[F], content: Any, where: str, *top: str) -> F:
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (*top, *first["loc"]))) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        what = "is missing; accuracies cannot be compared without it" if first["type"] == "missing" else said
        begin = f"{where}: " if where else ""
        remedy = "" if ";" in what else "; correct it"
        raise BadInput(f"{begin}{place}: {what[:1].lower()}{what[1:]}{remedy}") from None
