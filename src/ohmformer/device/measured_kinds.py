"""Write noise as fits and tables of measured cells: polynomials in pieces, and means and deviations by target.

Both kinds may hold parameters of several times after the write, between which they interpolate in the logarithm of
time. `families.py` defines what the methods of a kind take and return.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ohmformer import units
from ohmformer.device.families import CellRange, GaussianWriteNoise, PositiveSeconds, PositiveSiemens
from ohmformer.device.interpolation import Row, least_value, linear, polynomial, row_at
from ohmformer.errors import BadInput
from ohmformer.quantities import Listed, Siemens, SiemensRows
from ohmformer.registry import register

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-9
"""Relative difference through rounding: of a polynomial that reaches zero, and of two ends that are the same."""


class TimedNoise(GaussianWriteNoise):
    """Gaussian write noise whose parameters may be given for several times after the write.

    Without `times` they hold at every age. With them, cells that are read before the first time have the noise of the
    first one. Cells that are read after the last one are refused, since nothing is known of them.
    """

    times: Annotated[tuple[PositiveSeconds, ...], Listed] = ()
    """Times after the write at which the parameters were measured [s], rising; empty if they hold at every age."""

    @model_validator(mode="after")
    def _times_rise(self) -> Self:
        check_rising("times", self.times)
        return self

    @property
    def count(self) -> int:
        """Number of times at which parameters are given."""
        return max(1, len(self.times))

    def at_age(self, age: float) -> Self:
        """The noise of cells that are read `age` seconds after the write, with one set of parameters."""
        if not self.times:
            return self
        if age > self.times[-1] * (1 + ROUNDING):
            raise BadInput(
                f"cells are read {units.show(age, 's')} after the write, but write_noise.times ends at "
                f"{units.show(self.times[-1], 's')}; add a later time with its parameters, or lower the age"
            )
        return self.model_copy(update={"times": (), **self.parameters_at(age)})

    @abstractmethod
    def parameters_at(self, age: float) -> dict[str, tuple[Row, ...]]:
        """Fields and their values for one age [s], from those of the given times."""


@register
class PiecewisePolynomial(TimedNoise):
    """G' = G + (G_max / g_ref) sum_k c_k (G / G_max)^k eps: a polynomial of any degree, in one piece or several."""

    strength: ClassVar[tuple[str, ...]] = ("coefficients",)

    kind: Literal["piecewise_polynomial"] = "piecewise_polynomial"
    g_ref: PositiveSiemens
    """G_max of the cells that the coefficients were fitted to [S]."""
    coefficients: Annotated[SiemensRows, Field(min_length=1)]
    """Coefficients c_0, c_1 and so on [S]: one list for each piece, from the lowest conductances up. With several
    `times`, the pieces of the first time come first, then those of the second one, and so on."""
    borders: Annotated[tuple[PositiveSiemens, ...], Listed] = ()
    """Conductances between two pieces [S] of cells with G_max = `g_ref`, rising. Each belongs to the upper piece."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        check_rising("borders", self.borders)
        if self.borders and self.borders[-1] >= self.g_ref:
            raise ValueError("borders: the last one is not below g_ref; leave out what is above g_ref")
        given, needed = len(self.coefficients), (len(self.borders) + 1) * self.count
        if given != needed:
            raise ValueError(
                f"coefficients has {given} lists; give {needed}, one for each piece at each time, since there are "
                f"{len(self.borders)} borders and {self.count} times"
            )
        if not all(self.coefficients):
            raise ValueError("coefficients has an empty list; give at least one coefficient for each piece")
        return self

    @property
    def silent(self) -> bool:
        """True if all coefficients are 0."""
        return not any(any(row) for row in self.coefficients)

    def scaled(self, factor: float) -> Self:
        """This kind with all coefficients times `factor`."""
        return self.model_copy(update={"coefficients": _scaled(self.coefficients, factor)})

    def parameters_at(self, age: float) -> dict[str, tuple[Row, ...]]:
        """The coefficients of each piece at one age."""
        pieces = len(self.borders) + 1
        by_piece = [self.coefficients[piece::pieces] for piece in range(pieces)]
        return {"coefficients": tuple(row_at(age, self.times, rows) for rows in by_piece)}

    def unsuited(self, cell: CellRange) -> str:
        """A standard deviation is never below zero between G_min and G_max, at any time."""
        ends = [0.0, *(border / self.g_ref for border in self.borders), 1.0]
        for index, row in enumerate(self.coefficients):
            time, piece = divmod(index, len(ends) - 1)
            low, high = max(ends[piece], cell.g_min / cell.g_max), ends[piece + 1]
            least, place = least_value(row, low, high) if low <= high else (0.0, 0.0)
            if least < -ROUNDING * max(map(abs, row)):
                when = f" {units.show(self.times[time], 's')} after the write" if self.times else ""
                return (
                    f"the polynomial falls to {least:.3g} S at G = {units.show(place * cell.g_max, 'S')}{when}, but a "
                    "standard deviation is never below zero; correct coefficients or borders, or the range of the cell"
                )
        return ""

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """The polynomial of the piece in which G lies; 0 where it is negative."""
        x, scale = g / cell.g_max, cell.g_max / self.g_ref
        std, *upper = (polynomial(x, row) for row in self.coefficients[: len(self.borders) + 1])
        for border, value in zip(self.borders, upper, strict=True):
            std = value.where(x >= border / self.g_ref, std)
        return std.mul_(scale).clamp_(min=0.0)


@register
class MeasuredTable(TimedNoise):
    """G' = mean(G) + std(G) eps, clamped: measured means and deviations, linear between measured targets.

    Means may differ from the targets, such as those of cells that relax after the write.
    """

    strength: ClassVar[tuple[str, ...]] = ("std",)

    kind: Literal["table"] = "table"
    targets: Annotated[tuple[Annotated[Siemens, Field(ge=0)], ...], Listed, Field(min_length=2)]
    """Targets [S], rising. They cover the range of the cell, from G_min to G_max."""
    std: Annotated[SiemensRows, Field(min_length=1)]
    """Standard deviation [S] at each target; with several `times`, one list for each time."""
    mean: SiemensRows = ()
    """Mean conductance [S] at each target, likewise; empty if it is the target."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        check_rising("targets", self.targets)
        for name in ("std", "mean"):
            rows = getattr(self, name)
            if (rows or name == "std") and len(rows) != self.count:
                raise ValueError(f"{name} has {len(rows)} lists for {self.count} times; give one for each time")
            for row in rows:
                if len(row) != len(self.targets):
                    raise ValueError(f"{name} has {len(row)} values for {len(self.targets)} targets; give one for each")
                if min(row) < 0:
                    raise ValueError(f"{name} has {units.show(min(row), 'S')}: must be 0 or more; correct it")
        return self

    @property
    def mean_is_target(self) -> bool:
        """True if no means are given."""
        return not self.mean

    @property
    def silent(self) -> bool:
        """True if all deviations are 0 and no means are given."""
        return self.mean_is_target and not any(any(row) for row in self.std)

    def scaled(self, factor: float) -> Self:
        """This kind with all deviations times `factor`; means stay."""
        return self.model_copy(update={"std": _scaled(self.std, factor)})

    def parameters_at(self, age: float) -> dict[str, tuple[Row, ...]]:
        """Deviations and means at one age."""
        rows = {"std": self.std, "mean": self.mean}
        return {name: (row_at(age, self.times, given),) if given else () for name, given in rows.items()}

    def unsuited(self, cell: CellRange) -> str:
        """The table covers the range of the cell, and no mean is beyond its ceiling."""
        first, last = self.targets[0], self.targets[-1]
        if first > cell.g_min * (1 + ROUNDING) or last < cell.g_max * (1 - ROUNDING):
            return (
                f"targets from {units.show(first, 'S')} to {units.show(last, 'S')} do not cover the range of the cell, "
                f"{units.show(cell.g_min, 'S')} to {units.show(cell.g_max, 'S')}; measure more targets, or narrow it"
            )
        if cell.g_ceiling is not None and any(max(row) > cell.g_ceiling for row in self.mean):
            return "mean is above g_ceiling, which no write exceeds; raise g_ceiling, or leave it out"
        return ""

    def write_mean(self, g: Tensor, cell: CellRange) -> Tensor:
        """The interpolated mean; the target if no means are given."""
        return linear(g, self.targets, self.mean[0]) if self.mean else g

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """The interpolated deviation."""
        return linear(g, self.targets, self.std[0]).clamp_(min=0.0)


def _scaled(rows: tuple[Row, ...], factor: float) -> tuple[Row, ...]:
    return tuple(tuple(factor * value for value in row) for row in rows)


def check_rising(name: str, values: Row) -> None:
    """Refuse a list whose values do not rise."""
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"{name} must rise; sort them, and give each one once")
