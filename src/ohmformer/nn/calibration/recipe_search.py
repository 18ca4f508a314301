"""Search for the best recipe: runs a model on calibration inputs with each candidate in turn, and chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ohmformer.mitigation.budget import KVBudget, PriceKV
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.candidates import CandidateComparison, TriedCandidates, Unpriced, checked_cost
from ohmformer.nn.calibration.comparison import best_recipe, losses_of
from ohmformer.nn.calibration.expected_error import expected_error
from ohmformer.nn.calibration.mixtures import mixtures
from ohmformer.nn.calibration.operand_setting import OperandSetting
from ohmformer.nn.calibration.recipes import Recipe
from ohmformer.nn.calibration.runs import Runs
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.observation import first_samples


@dataclass
class RecipeSearch:
    """The search for the best recipe for K and V: every candidate is tried on calibration inputs, and one is kept.

    Attributes:
        runs: the converted model, on the chip of calibration, with the inputs.
        operands: the operands to protect.
        tried: name -> recipe, doing nothing first.
        budget: what the protection may cost; None for any recipe, whatever it costs.
        price: the cost of a pass for given clips and conditionings; None if it is not known.
        compared: what is known of the candidates so far.
    """

    runs: Runs
    operands: list[KVOperand]
    tried: Mapping[str, Recipe]
    budget: KVBudget | None
    price: PriceKV | None
    compared: TriedCandidates = field(default_factory=TriedCandidates)

    @cached_property
    def floor(self) -> Tensor:
        """The losses of the original itself."""
        return losses_of(self.runs.reference, self.runs.reference)

    def comparison(self, chosen: str) -> CandidateComparison | None:
        """Return the comparison of all candidates; None without a budget."""
        return None if self.budget is None else self.compared.comparison(self.budget, float(self.floor.mean()), chosen)

    def choose(self, inputs_of: Tensor) -> str:
        """Try all recipes on operands that have observed their tokens, keep the best, and return its name.

        With a budget and prices, mixtures of recipes are tried as well; see `mixtures`.

        Args:
            inputs_of: for each loss the number of its input.
        """
        self.compared = TriedCandidates()
        for name, recipe in self.tried.items():
            settings = {}
            for operand in self.operands:
                recipes.apply(recipe, operand)
                settings[operand.name] = OperandSetting.of(operand)
            self._try(name, settings)
        if self.budget is not None and self.price is not None:
            for name, settings in mixtures(self.compared, self.budget, self.price).items():
                for operand in self.operands:
                    settings[operand.name].apply_to(operand)
                self._try(name, settings)
        if self.budget is None:
            best = best_recipe(self.compared.losses, self.floor, inputs_of)
        else:
            best = self.compared.best_within(self.budget, self.floor, inputs_of)
        for operand in self.operands:
            self.compared.settings[best][operand.name].apply_to(operand)
            operand.watched.clear()
        calibrate_ranges(self.runs.model)
        return best

    def _try(self, name: str, settings: dict[str, OperandSetting]) -> None:
        """Run the model with operands that have these settings, and note what is found.

        With a budget, a candidate is left out if an earlier one has the same settings, or if there is a limit and the
        candidate has no price.

        Raises:
            BadInput: doing nothing has no price.
        """
        compared = self.compared
        if self.budget is not None:
            if compared.holds_same(settings):
                return
            watched = {each.name: first_samples(each.watched) for each in self.operands}
            errors = {each.name: float(expected_error(each, watched[each.name]).mean()) for each in self.operands}
            if self.price is not None:
                try:
                    compared.costs[name] = checked_cost(self.price, settings)
                except Unpriced as error:
                    if name == "none":
                        raise
                    if self.budget.limits:
                        compared.left_out[name] = str(error)
                        return
            compared.errors[name] = errors
        compared.settings[name] = settings
        calibrate_ranges(self.runs.model)
        compared.losses[name] = losses_of(self.runs.reference, self.runs.run("run"))
