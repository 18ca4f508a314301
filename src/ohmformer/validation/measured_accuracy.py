"""Compare accuracies measured on one model and data set with those of a paper on another. Free of torch.

A paper's folder may hold an accuracy.json. For each series (a model such as `standard`, and a treatment of K and V such
as `clip`) it has the mean accuracies by gamma, and paired gains. Accuracies of different models are compared as the
share of the software model's accuracy above chance that remains. One number is fitted: sigma, which the paper does not
report, to the paper's accuracies without mitigation.
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

GRID_STEPS = 2000
"""Steps of the grid of sigma, evenly spaced over the measured range."""

Difference = Annotated[SignedFraction, Field(ge=-1, le=1)]


class Series(Spec):
    """One model in accuracy.json: its mean accuracies by method and gamma."""

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
    """A paired difference of accuracies of two series in accuracy.json, with its 95 % interval."""

    better: str
    than: str
    gamma: Fraction
    mean: Difference
    low: Difference
    high: Difference


class Record(Spec):
    """The content of an accuracy.json."""

    series: dict[str, Series] = Field(default_factory=dict)
    gains: list[Gain] = Field(default_factory=list)


class Fit(Spec):
    """The fit of sigma: a series, and accuracies of the paper by gamma."""

    series: str
    gamma: Annotated[list[Annotated[Fraction, Field(gt=0)]], Field(min_length=1, max_length=100)]
    accuracy: list[Share]

    @model_validator(mode="after")
    def _pairs(self) -> Fit:
        if len(self.gamma) != len(self.accuracy):
            raise ValueError("gamma and accuracy have different numbers of values; pair them")
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
    """Measured accuracies, and the accuracies that the paper reports.

    Attributes:
        series: model -> its accuracies.
        gains: paired differences of two series.
        reference: the model that stands for the paper's model.
        software: software accuracy of the paper.
        chance: chance accuracy of the paper's data.
        fitted: series, gammas and accuracies of the paper that sigma is fitted to.
    """

    series: dict[str, Series]
    gains: Sequence[Gain]
    reference: str
    software: float
    chance: float
    fitted: tuple[str, Sequence[float], Sequence[float]]

    @staticmethod
    def read(folder: Path, table: dict[str, Any]) -> Measured:
        """Read the accuracy.json of a paper's folder; without this file nothing has been measured yet.

        Args:
            folder: folder of the paper.
            table: `[measured]` of its claims.

        Raises:
            BadInput: the file or the table is invalid.
        """
        file = folder / "accuracy.json"
        paper = validate(Reported, table, where="", top="measured")
        record = _read_record(file) if file.exists() else Record()
        fitted = (paper.fit.series, paper.fit.gamma, paper.fit.accuracy)
        return Measured(record.series, record.gains, paper.reference, paper.software, paper.chance, fitted)

    def accuracy(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """Return the accuracy of the paper's model if it kept the same share as the series, at the fitted sigma.

        Returns:
            The accuracy; None if it has not been measured.

        Raises:
            BadInput: there is not exactly one series and one gamma.
        """
        (name,), (gamma,) = _counted("series", names, 1), _counted("gamma", gammas, 1)
        return None if self.sigma is None else self._scaled(name, gamma * self.sigma)

    def returned(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """Return the share of the accuracy lost by the second series that the first one recovers, at the fitted sigma.

        Raises:
            BadInput: there are not exactly two series and one gamma.
        """
        better, worse = (self.accuracy([name], gammas) for name in _counted("series", names, 2))
        if better is None or worse is None or worse == self.software:  # no accuracy is lost, so there is no share
            return None
        return (better - worse) / (self.software - worse)

    def above(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """Return 1 if each series is significantly above the one before it (lower bound above 0), else 0."""
        gains = [self._gain(better, than, gamma) for than, better in pairwise(names) for gamma in gammas]
        return None if None in gains else float(all(gain.low > 0 for gain in gains if gain))

    def grows(self, names: Sequence[str], gammas: Sequence[float]) -> float | None:
        """Return 1 if the gain of the first series over the second grows with every gamma, else 0.

        Raises:
            BadInput: there are not exactly two series.
        """
        better, than = _counted("series", names, 2)
        gains = [self._gain(better, than, gamma) for gamma in gammas]
        if None in gains:
            return None
        return float(all(later.mean > earlier.mean for earlier, later in pairwise(filter(None, gains))))

    @cached_property
    def sigma(self) -> float | None:
        """The sigma that fits the paper's accuracies without mitigation best; None if too few are measured."""
        name, gammas, _ = self.fitted
        points = self._points(name)
        if len(points) < 2:
            return None
        low, high = points[0][0] / min(gammas), points[-1][0] / max(gammas)
        grid = [low + (high - low) * step / GRID_STEPS for step in range(GRID_STEPS + 1)]
        errors = [(error, sigma) for sigma in grid if (error := self._error(sigma)) is not None]
        if not errors:
            return None
        best = min(errors)[1]
        return None if best == grid[-1] else best  # at its end, the optimum may be outside the measured range

    @property
    def misfit(self) -> float | None:
        """Root mean square difference from the paper's accuracies without mitigation, at the fitted sigma."""
        return None if self.sigma is None else self._error(self.sigma)

    def _error(self, sigma: float) -> float | None:
        """Root mean square difference at a sigma; None if it needs accuracies outside the measured range."""
        name, gammas, reported = self.fitted
        scaled = [self._scaled(name, gamma * sigma) for gamma in gammas]
        squares = [(a - b) ** 2 for a, b in zip(scaled, reported, strict=True) if a is not None]
        return sqrt(sum(squares) / len(squares)) if len(squares) == len(scaled) else None

    def _scaled(self, name: str, strength: float) -> float | None:
        """Return the accuracy at a gamma sigma, scaled to the paper's model."""
        value = between(self._points(name), strength)
        if value is None or self.reference not in self.series:
            return None
        reference = self.series[self.reference]
        share = (value - reference.chance) / (reference.software - reference.chance)
        return self.chance + share * (self.software - self.chance)

    def _points(self, name: str) -> list[tuple[float, float]]:
        """Return (gamma sigma, mean accuracy) of a series 'model.method', in ascending order."""
        model, _, method = name.partition(".")
        series = self.series.get(model)
        means = {} if series is None else series.means.get(method, {})
        return sorted((float(gamma) * series.sigma, mean) for gamma, mean in means.items() if series)

    def _gain(self, better: str, than: str, gamma: float) -> Gain | None:
        """Return the paired difference of two series at a gamma; None if it has not been measured."""
        key = (better, than, gamma)
        return next((gain for gain in self.gains if (gain.better, gain.than, gain.gamma) == key), None)


def _read_record(file: Path) -> Record:
    """Read the parts of an accuracy.json that are used."""
    content = read_json(file)
    if isinstance(content, dict):
        content = {key: content[key] for key in ("series", "gains") if key in content}
    return validate(Record, content, where=str(file))


def _counted(what: str, values: Sequence[T], count: int) -> Sequence[T]:
    """Refuse a list that does not have `count` values."""
    if len(values) != count:
        raise BadInput(f"{what} = {shown(list(values))}: must have {count} here; correct the list")
    return values


def between(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """Interpolate linearly between points (x, y) in ascending order; None outside their range."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None
