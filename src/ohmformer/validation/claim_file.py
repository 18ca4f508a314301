"""The format of a paper's claims.toml. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ohmformer import units
from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Count, Fraction, Seconds, Share
from ohmformer.schema import Spec

SMALLEST, LARGEST = 1e-24, 1e17
"""Bounds of the magnitude of a reported number in SI units; zero is allowed too."""

Role = Literal["calibration", "validation", "shown", "not_checkable", "contradicted"]


class Claim(Spec):
    """One reported number of a paper.

    Attributes:
        id: short name.
        claim: the claim in words.
        reported: the reported number, with its unit if it has one; None if the paper reports no number.
        where: place in the paper.
        role: role of the claim; see `ohmformer.validation.claims`.
        tolerance: largest accepted deviation of the ratio modeled / reported from 1, as a fraction.
        quantity: key of `ohmformer.validation.claim_quantities.QUANTITIES`; empty if the number cannot be computed.
        runs: names of runs.
        against: names of the runs that `runs` are compared with, pair by pair.
        operations: stages, or the engine, whose share is computed.
        of: stages that the share, the energy or the time refers to.
        components: components of the energy whose share is computed, or parts at full load; all if there are none.
        tiles: number of tiles at full load; by default those of the chip, or of one node, or one tile.
        cell: library cell whose write, drift or read is computed.
        other_cell: library cell that it is compared with.
        share: conductance at which they are computed, as a share of G_max.
        age: time from the write to the read [s].
        encoding: how weights are stored in the cells.
        points: points of a discrete Fourier transform whose weights are stored.
        parts: parts of its weights whose error is computed: both, as one complex number, or the real part alone.
        series: series of measured accuracies, as `model.method`.
        gamma: noise levels of these accuracies.
        why: why the model may differ, or why the claim cannot be checked.
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
    components: tuple[str, ...] = ()
    tiles: Count | None = None
    cell: str = ""
    other_cell: str = ""
    share: Share | None = None
    age: Annotated[Seconds, Field(ge=0)] = 0.0
    encoding: Literal["differential", "offset"] = "differential"
    points: Annotated[int, Field(ge=2, le=1024)] = 64
    parts: Literal["complex", "real"] = "complex"
    series: tuple[str, ...] = ()
    gamma: tuple[Fraction, ...] = ()
    why: Annotated[str, Field(min_length=1)]


class About(Spec):
    """`[paper]` of a claims.toml: the title of the paper, its key in sources.bib, and a note for readers."""

    title: str = ""
    source: str = ""
    note: str = ""


class ClaimsFile(Spec):
    """A claims.toml. Claims are validated one by one later, so that messages name the claim."""

    paper: About = About()
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    measured: dict[str, Any] | None = None
    claim: list[dict[str, Any]] = Field(default_factory=list)


def reported_number(claim: Claim, unit: str) -> float | None:
    """Return the reported number of a claim in SI units; None if it reports none.

    Args:
        claim: the claim.
        unit: SI unit of its quantity.

    Raises:
        BadInput: it is not a number with that unit.
    """
    value = claim.reported
    place = f"{claim.id}: reported = {shown(value)}"
    if isinstance(value, str):
        try:
            value = units.parse(value, unit)
        except ValueError as error:
            raise BadInput(f"{place}: {error}") from None
    if value is not None and value != 0 and not SMALLEST <= abs(value) <= LARGEST:
        raise BadInput(f"{place}: is out of range, {SMALLEST:g} to {LARGEST:g}; correct its exponent")
    return value
