"""Types of the candidates for K and V that a budget compared, in results. Free of torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ohmformer.study.results.part import Number, Part, Text


class CandidateCost(Part):
    """What one pass costs with a candidate, in SI units.

    Attributes:
        latency: time of a pass [s].
        energy: energy of a pass [J].
        cells: number of memristive cells that hold K and V.
        area: area of all chips [m^2].
        writes: number of writes of cells in a pass; None if unknown.
        lifetime: time until the first cells wear out [s]; None if unknown or unlimited.
    """

    latency: Number
    energy: Number
    cells: Number
    area: Number
    writes: Number | None = None
    lifetime: Number | None = None


class CandidateResult(Part):
    """One candidate.

    Attributes:
        name: its name.
        loss: mean loss of the model's answers against those of the original, on calibration inputs.
        expected: expected mean square error of products with K and V, as a share of that of doing nothing; None if
            doing nothing makes no error.
        cost: what it costs; None if the accelerator has no prices.
        within: True if it is within the budget.
        chosen: True if it was chosen.
    """

    name: Text
    loss: Number
    expected: Number | None
    cost: CandidateCost | None
    within: bool
    chosen: bool


class ComparisonResult(Part):
    """The comparison of all candidates for a budget, also of those beyond it.

    Attributes:
        limits: quantity -> its limit, as a factor of what doing nothing takes.
        floor: mean loss of the original itself.
        candidates: the candidates; the first one does nothing.
        left_out: candidate that was not tried, since it has no price -> the reason.
    """

    omitted_at_default = frozenset({"left_out"})

    limits: dict[Text, Number] = Field(default_factory=dict)
    floor: Number
    candidates: Annotated[tuple[CandidateResult, ...], Field(min_length=1)]
    left_out: dict[Text, Text] = Field(default={})

    @model_validator(mode="after")
    def _one_is_chosen(self) -> Self:
        """Exactly one candidate was chosen, and it is within the budget."""
        chosen = [each for each in self.candidates if each.chosen]
        if len(chosen) != 1 or not chosen[0].within:
            raise ValueError("one candidate is chosen, and it is within the budget")
        return self

    def ratio(self, candidate: CandidateResult, quantity: str) -> float | None:
        """A quantity of a candidate's cost as a factor of what doing nothing takes; None if one of them is unknown."""
        plain = self.candidates[0].cost
        if candidate.cost is None or plain is None:
            return None
        value, least = getattr(candidate.cost, quantity), getattr(plain, quantity)
        return None if value is None or not least else value / least

    def excess(self, candidate: CandidateResult) -> float:
        """The loss of a candidate above that of the original."""
        return candidate.loss - self.floor

    def best_for(self, quantity: str) -> list[CandidateResult]:
        """The candidates than which no other one loses less for no more of a quantity, from the cheapest on."""
        known = [(ratio, each) for each in self.candidates if (ratio := self.ratio(each, quantity)) is not None]
        found: list[CandidateResult] = []
        for _, each in sorted(known, key=lambda entry: (entry[0], entry[1].loss)):
            if not found or each.loss < found[-1].loss:
                found.append(each)
        return found
