"""Runs a model on calibration inputs with one candidate after another, and chooses among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, batches, call, size, take
from ohmformer.mitigation.budget import KVBudget, PriceKV
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.comparison import Answer, answer_of, best_recipe, input_numbers, losses_of
from ohmformer.nn.calibration.expected_error import expected_error
from ohmformer.nn.calibration.front import Compared, Front, Unpriced, checked_cost
from ohmformer.nn.calibration.mixtures import mixtures
from ohmformer.nn.calibration.operand_setting import OperandSetting
from ohmformer.nn.calibration.recipes import Recipe
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.streams import samples


@dataclass
class Trial:
    """The comparison of candidates on calibration inputs.

    Attributes:
        model: the converted model, on the chip of calibration.
        handle: its handle.
        operands: the operands to protect, which have observed their tokens.
        parts: batches of inputs.
        batch: number of samples per call.
        reference: answers of the original.
        budget: what the protection may cost; None for any recipe, whatever it costs.
        price: the cost of a pass for given clips and conditionings; None if it is not known.
        compared: what is known of the candidates so far.
    """

    model: nn.Module
    handle: Crossbars
    operands: list[KVOperand]
    parts: list[Inputs]
    batch: int
    reference: list[Answer]
    budget: KVBudget | None
    price: PriceKV | None
    compared: Compared = field(default_factory=Compared)

    @cached_property
    def inputs_of(self) -> Tensor:
        """For each loss the number of its input."""
        return input_numbers(self.reference, self.handle.axis)

    @cached_property
    def floor(self) -> Tensor:
        """The losses of the original itself."""
        return losses_of(self.reference, self.reference)

    def front(self, chosen: str) -> Front | None:
        """Return all candidates; None without a budget."""
        return None if self.budget is None else self.compared.front(self.budget, float(self.floor.mean()), chosen)

    def best_of(self, tried: Mapping[str, Recipe]) -> str:
        """Try recipes, and return the name of the best candidate.

        With a budget and prices, mixtures of recipes are tried as well; see `mixtures`.
        """
        for name, recipe in tried.items():
            settings = {}
            for operand in self.operands:
                recipes.apply(recipe, operand)
                settings[operand.name] = OperandSetting.of(operand)
            self._try(name, settings)
        floor = self.floor
        if self.budget is None:
            return best_recipe(self.compared.losses, floor, self.inputs_of)
        if self.price is not None:
            for name, settings in mixtures(self.compared, self.budget, self.price).items():
                for operand in self.operands:
                    settings[operand.name].apply_to(operand)
                self._try(name, settings)
        return self.compared.best_within(self.budget, floor, self.inputs_of)

    def keep(self, name: str) -> None:
        """Set all operands as a candidate does, and forget what was observed."""
        for operand in self.operands:
            self.compared.settings[name][operand.name].apply_to(operand)
            operand.watched.clear()
        calibrate_ranges(self.model)

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
            errors = {each.name: float(expected_error(each, each.watched).mean()) for each in self.operands}
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
        calibrate_ranges(self.model)
        answers = answers_of(self.model, self.handle, self.parts, self.batch, "run")
        compared.losses[name] = losses_of(self.reference, answers)


def answers_of(
    model: nn.Module,
    handle: Crossbars,
    parts: list[Inputs],
    batch: int,
    mode: Literal["bypass", "run", "observe tokens"],
) -> list[Answer]:
    """Run the model on all parts of the inputs in this mode, and return its answer to each batch."""
    answers: list[Answer] = []
    first = 0
    with torch.no_grad(), handle.state.set_mode(mode):
        for inputs in parts:
            for rows in batches(inputs, batch):
                with samples(f"calibration {first + n}" for n in range(rows.start, rows.stop)):
                    answers.append(answer_of(call(model, take(inputs, rows)), rows.stop - rows.start))
            first += size(inputs)
    return answers
