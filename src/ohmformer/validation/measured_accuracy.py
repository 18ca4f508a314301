"""Accuracies that were measured elsewhere, against those of a paper with another model and other data. Free of torch.

A paper's folder may hold an accuracy.json: for each series (a model, `standard`, and how K and V are treated, `clip`)
the mean accuracies by gamma, and paired gains. Model and data differ from the paper's, so accuracies are compared by
the share of the software model's accuracy that is left, counted from chance. One number is fitted: sigma, which the
paper does not give, to its accuracies without mitigation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Count, Deviation, Fraction, Share, SignedFraction
from ohmformer.schema import Spec, validate
from ohmformer.textfiles import read_json

T = TypeVar("T")

STEPS = 2000
"""Number of steps between the values of sigma that are tried, evenly spread over the range that was measured."""

Difference = Annotated[SignedFraction, Field(ge=-1, le=1)]


class Series(Spec):
    """One model in accuracy.json: its accuracies by method and gamma."""

    software: Share
    chance: Share
    sigma: Annotated[Deviation, Field(gt=0)]
    study: str = ""
    chips: Count | None = None
    samples: Count | None = None
    means: dict[str, dict[Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,9})?$")], Share]]

    @model_validator(mode="after")
    def _order(self) -> Series:
        if self.software <= self.chance:
            raise ValueError(f"software = {self.software:g} is not above chance = {self.chance:g}; correct one of them")
        return self


class Gain(Spec):
    """A paired difference of two series in accuracy.json."""

    better: str
    than: str
    gamma: Fraction
    mean: Difference
    low: Difference
    high: Difference


class Record(Spec):
    """The parts of an accuracy.json that are read."""

    series: dict[str, Series] = Field(default_factory=dict)
    gains: list[Gain] = Field(default_factory=list)


class Fit(Spec):
    """The accuracies of the paper, by gamma, that fix sigma."""

    series: str
    gamma: Annotated[list[Annotated[Fraction, Field(gt=0)]], Field(min_length=1, max_length=100)]
    accuracy: list[Share]

    @model_validator(mode="after")
    def _pairs(self) -> Fit:
        if len(self.gamma) != len(self.accuracy):
            raise ValueError("gamma and accuracy have not equally many numbers; pair them")
        return self


class Reported(Spec):
    """`[measured]` of a claims.toml."""

    reference: str
    software: Share
    chance: Share
    fit: Fit

    @model_validator(mode="after")
    def _order(self) -> Reported:
        if self.software <= self.chance:
            raise ValueError(f"software = {self.software:g} is not above chance = {self.chance:g}; correct one of them")
        return self


@dataclass(frozen=True)
class Measured:
    """Measured accuracies, beside those of a paper.

    Attributes:
        series: model -> its accuracies.
        gains: paired differences of two series.
        reference: name of the measured model that stands for the paper's model.
        software: accuracy of the paper's model without crossbars.
        chance: accuracy of guessing on the paper's data.
        fitted: name of a series, and the gammas and accuracies of the paper that fix sigma with it.
    """

    series: dict[str, Series]
    gains: Sequence[Gain]
    reference: str
    software: float
    chance: float
    fitted: tuple[str, Sequence[float], Sequence[float]]

    @staticmethod
    def read(folder: Path, table: dict[str, Any]) -> Measured:
        """The accuracies of a paper's folder; without a file in it, nothing is measured yet.

        Args:
            folder: of the paper; its accuracy.json is read.
            table: `[measured]` of the paper's claims.

        Raises:
            BadInput: the file or the table cannot be used; one line with file, field, value and remedy.
        """
        file = folder / "accuracy.json"
        paper = validate(Reported, table, where="", top="measured")
        record = _read_record(file) if file.exists() else Record()
        fitted = (paper.fit.series, paper.fit.gamma, paper.fit.accuracy)
        return Measured(record.series, record.gains, paper.reference, paper.software, paper.chance, fitted)

    def accuracy(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """The accuracy of the paper's model if it kept the same share as the series, at the fitted sigma.

        None where nothing was measured there.

        Raises:
            BadInput: there is not one series and one gamma.
        """
        (name,), (gamma,) = _counted("series", names, 1), _counted("gamma", gammas, 1)
        return None if self.sigma is None else self._scaled(name, gamma * self.sigma)

    def returned(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """The share of the accuracy lost by the second series that the first one keeps, at the fitted sigma.

        None where nothing was measured there, or nothing is lost.

        Raises:
            BadInput: there are not two series and one gamma.
        """
        better, worse = (self.accuracy([name], gammas) for name in _counted("series", names, 2))
        if better is None or worse is None or worse == self.software:
            return None
        return (better - worse) / (self.software - worse)

    def above(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """1 where each series is above the one before it, by the lower bound of their paired difference."""
        found = [self._gain(better, than, gamma) for than, better in pairwise(names) for gamma in gammas]
        return None if None in found else float(all(gain.low > 0 for gain in found if gain))

    def grows(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """1 where the gain of the first series over the second is larger at each next gamma.

        Raises:
            BadInput: there are not two series.
        """
        better, than = _counted("series", names, 2)
        found = [self._gain(better, than, gamma) for gamma in gammas]
        if None in found:
            return None
        return float(all(later.mean > earlier.mean for earlier, later in pairwise(gain for gain in found if gain)))

    @cached_property
    def sigma(self) -> float | None:
        """The sigma with which accuracies without mitigation come nearest to the paper's.

        None where fewer than two were measured, or the best sigma lies at the edge of what was measured.
        """
        name, gammas, _ = self.fitted
        points = self._points(name)
        if len(points) < 2:
            return None
        low, high = points[0][0] / min(gammas), points[-1][0] / max(gammas)
        grid = [low + (high - low) * step / STEPS for step in range(STEPS + 1)]
        tried = [(error, sigma) for sigma in grid if (error := self._error(sigma)) is not None]
        if not tried:
            return None
        best = min(tried)[1]
        return None if best == grid[-1] else best  # the best of all may lie beyond what was measured

    @property
    def misfit(self) -> float | None:
        """Root mean square difference from the paper's accuracies without mitigation; None without a sigma."""
        return None if self.sigma is None else self._error(self.sigma)

    def _error(self, sigma: float) -> float | None:
        name, gammas, wanted = self.fitted
        got = [self._scaled(name, gamma * sigma) for gamma in gammas]
        squares = [(a - b) ** 2 for a, b in zip(got, wanted, strict=True) if a is not None]
        return sqrt(sum(squares) / len(squares)) if len(squares) == len(got) else None

    def _scaled(self, name: str, strength: float) -> float | None:
        """Accuracy at some gamma sigma, carried over to the paper's model."""
        value = between(self._points(name), strength)
        if value is None or self.reference not in self.series:
            return None
        own = self.series[self.reference]
        share = (value - own.chance) / (own.software - own.chance)
        return self.chance + share * (self.software - self.chance)

    def _points(self, name: str) -> list[tuple[float, float]]:
        """(gamma sigma, mean accuracy) of a series 'model.method', in ascending order."""
        model, _, method = name.partition(".")
        series = self.series.get(model)
        if series is None:
            return []
        return sorted((float(gamma) * series.sigma, mean) for gamma, mean in series.means.get(method, {}).items())

    def _gain(self, better: str, than: str, gamma: float) -> Gain | None:
        wanted = (better, than, gamma)
        return next((gain for gain in self.gains if (gain.better, gain.than, gain.gamma) == wanted), None)


def _read_record(file: Path) -> Record:
    """The parts of an accuracy.json that are read."""
    content = read_json(file)
    if isinstance(content, dict):
        content = {key: content[key] for key in ("series", "gains") if key in content}
    return validate(Record, content, where=str(file))


def _counted(field: str, values: Sequence[T], count: int) -> Sequence[T]:
    """The values, of which there must be `count`."""
    if len(values) != count:
        raise BadInput(f"{field} = {shown(list(values))}: must have {count} here; correct the list")
    return values


def between(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """Value at x on the straight lines between points; None outside of them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None
