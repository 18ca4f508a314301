"""The tables of a paper's claims.toml. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ohmformer import units
from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Fraction
from ohmformer.schema import Spec

LEAST, MOST = 1e-24, 1e17
"""What a paper reports lies between these magnitudes, in SI units, or is zero."""

Role = Literal["calibration", "validation", "shown", "not_checkable", "contradicted"]


class Claim(Spec):
    """One number of a paper.

    Attributes:
        id: short name of the claim.
        claim: the claim in words.
        reported: the number, with its unit where it has one; None for a reading that is only shown.
        where: place in the paper.
        role: see `ohmformer.validation.claims`.
        tolerance: largest deviation of modelled / reported from 1, as a fraction.
        quantity: name of the quantity that is computed; empty where nothing can be.
        runs: names of runs.
        against: names of the runs that those of `runs` are compared with, one by one.
        operations: stages whose share is computed, or the engine.
        of: stages that make up the whole.
        series: measured accuracies, as `model.method`.
        gamma: their noise levels.
        why: why the model may differ, or why nothing can be checked.
    """

    id: str
    claim: str
    reported: Annotated[float, Field(allow_inf_nan=False)] | str | None = None
    where: str
    role: Role
    tolerance: Fraction = 0.15
    quantity: str = ""
    runs: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    gamma: tuple[Fraction, ...] = ()
    why: Annotated[str, Field(min_length=1)]


class About(Spec):
    """`[paper]` of a claims.toml: the title of the paper, its key in sources.bib, and a note for readers."""

    title: str = ""
    source: str = ""
    note: str = ""


class ClaimsFile(Spec):
    """A claims.toml. Each claim is checked by itself later, so that messages name it."""

    paper: About = About()
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    measured: dict[str, Any] | None = None
    claim: list[dict[str, Any]] = Field(default_factory=list)


def reported_number(claim: Claim, unit: str) -> float | None:
    """What a claim reports, in SI units.

    Raises:
        BadInput: it is no number with that unit.
    """
    value = claim.reported
    place = f"{claim.id}: reported = {shown(value)}"
    if isinstance(value, str):
        try:
            value = units.parse(value, unit)
        except ValueError as error:
            raise BadInput(f"{place}: {error}") from None
    if value is not None and value != 0 and not LEAST <= abs(value) <= MOST:
        raise BadInput(f"{place}: is no number that a paper reports; correct its exponent")
    return value
