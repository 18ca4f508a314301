"""Candidates for K and V with their costs, and the choice among them within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf, prod
from typing import Any

from torch import Tensor

from ohmformer.errors import BadInput, given
from ohmformer.mitigation.budget import KVBudget, KVCost, PriceKV
from ohmformer.nn.calibration.comparison import chance_gain, helpful
from ohmformer.nn.calibration.operand_setting import OperandSetting, clips_of, conditionings_of

EQUAL = 0.02
"""A candidate is as good as the best one if its loss is larger by no more than chance may explain, and by no more than
this share of what the best one gains."""


@dataclass(frozen=True)
class Candidate:
    """One way to protect K and V.

    Attributes:
        name: its name.
        loss: mean loss of the model's answers against those of the original.
        expected: expected mean square error of products with K and V, as a share of that of doing nothing; mean over
            operands. None if nothing is expected to go wrong.
        cost: what a pass costs with it; None if no price is known.
        within: True if that is within the budget.
        chosen: True for the one that was chosen.
    """

    name: str
    loss: float
    expected: float | None
    cost: KVCost | None
    within: bool
    chosen: bool


@dataclass(frozen=True)
class CandidateComparison:
    """The comparison of all candidates for a budget: also of those beyond it, and of those that another one beats.

    Attributes:
        limits: quantity -> its limit, as a factor of what doing nothing takes.
        floor: mean loss of the original itself, the smallest possible one.
        candidates: the candidates; the first one does nothing.
        left_out: candidate without a price -> the reason, where there is a limit.
    """

    limits: dict[str, float]
    floor: float
    candidates: tuple[Candidate, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def canonical(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        candidates = [asdict(each) for each in self.candidates]
        left_out = {"left_out": dict(self.left_out)} if self.left_out else {}
        return {"limits": dict(self.limits), "floor": self.floor, "candidates": candidates, **left_out}


@dataclass
class TriedCandidates:
    """What is known of the candidates while they are compared. All attributes but `left_out` map a candidate's name.

    Attributes:
        settings: operand -> its setting.
        losses: losses of the answers on all inputs.
        errors: operand -> expected mean square error of its product.
        costs: what a pass costs; candidates without a price are missing.
        left_out: candidates that were not tried, since a limit needs their price, with the reason.
    """

    settings: dict[str, dict[str, OperandSetting]] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    costs: dict[str, KVCost] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def best_within(self, budget: KVBudget, floor: Tensor, inputs_of: Tensor) -> str:
        """Return the chosen candidate.

        Candidates beyond the budget, and those that are not better than doing nothing by more than chance, are left
        out. Of the others the best is taken, or the cheapest one that is as good (`EQUAL`). The cheapest has the
        smallest product of latency, energy and cells.

        Args:
            budget: the budget.
            floor: losses of the original itself.
            inputs_of: for each loss the number of its input.
        """
        within = {name: loss for name, loss in self.losses.items() if self.holds(budget, name)}
        chance = partial(chance_gain, inputs_of=inputs_of)
        means = {name: float(within[name].mean()) for name in helpful(within, floor, chance)}
        best = min(means, key=lambda name: means[name])
        margin = EQUAL * (means["none"] - means[best])
        equal = [
            name
            for name, mean in means.items()
            if mean - means[best] <= min(margin, chance_gain(within[name] - within[best], inputs_of))
        ]
        return min(equal, key=self._expense) if self.costs else best

    def holds_same(self, settings: Mapping[str, OperandSetting]) -> bool:
        """True if a candidate has the same clips and conditionings."""
        same = clips_of(settings), conditionings_of(settings)
        return any((clips_of(held), conditionings_of(held)) == same for held in self.settings.values())

    def holds(self, budget: KVBudget, name: str) -> bool:
        """True if a candidate is within the budget."""
        return not budget.limits or budget.holds(self.costs[name], self.costs["none"])

    def _expense(self, name: str) -> float:
        """The product of latency, energy and cells as factors of doing nothing; infinite without a price."""
        if name not in self.costs:
            return inf
        ratios = self.costs[name].ratios(self.costs["none"])
        return prod(ratios[part] for part in ("latency", "energy", "cells"))

    def comparison(self, budget: KVBudget, floor: float, chosen: str) -> CandidateComparison:
        """Return the comparison of all candidates, with the chosen one marked.

        Args:
            budget: the budget.
            floor: mean loss of the original itself.
            chosen: the chosen candidate.
        """
        candidates = (
            Candidate(
                name=name,
                loss=float(loss.mean()),
                expected=self._expected(name),
                cost=self.costs.get(name),
                within=self.holds(budget, name),
                chosen=name == chosen,
            )
            for name, loss in self.losses.items()
        )
        return CandidateComparison(budget.limits, floor, tuple(candidates), self.left_out)

    def _expected(self, name: str) -> float | None:
        """Mean over operands of the expected error as a share of that of doing nothing."""
        shares = list(self.error_shares(name).values())
        return sum(shares) / len(shares) if shares else None

    def error_shares(self, name: str) -> dict[str, float]:
        """Operand -> its expected error as a share of that of doing nothing, for those in which that makes an error."""
        plain = self.errors["none"]
        return {operand: error / plain[operand] for operand, error in self.errors[name].items() if plain[operand] > 0}


class Unpriced(BadInput):
    """A candidate without a price."""


def checked_cost(price: PriceKV, settings: Mapping[str, OperandSetting]) -> KVCost:
    """Return what a user's `price` says of a candidate.

    Args:
        price: the function.
        settings: operand -> its setting.

    Raises:
        Unpriced: there is no price.
        BadInput: the function fails, or returns something else than a `KVCost`.
    """
    try:
        cost = price(clips_of(settings), conditionings_of(settings))
    except BadInput as error:
        raise Unpriced(str(error)) from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(f"calibrate: price fails ({type(error).__name__}: {reason}); it takes clips and kv") from error
    if not isinstance(cost, KVCost):
        raise BadInput(f"calibrate: price returns {given(cost)}; return a KVCost")
    return cost
