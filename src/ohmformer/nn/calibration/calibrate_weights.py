"""Choose the mitigation of static weights by layer, on calibration inputs without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.errors import BadInput, given, shown, suggest
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.calibration.comparison import best_on_chips, input_numbers, losses_of
from ohmformer.nn.calibration.runs import OBSERVED, Runs, is_noiseless, losses_on_chips
from ohmformer.nn.calibration.weight_error import just_written
from ohmformer.nn.calibration.weight_recipes import RECIPES, FittedMitigation, best_mitigation, with_feedback
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.convert.weight_mitigation import (
    assignment,
    assignments,
    error_feedback,
    groups,
    mitigate,
    observing,
    rule_of,
    weight_operands,
)
from ohmformer.nn.operands.weight import WeightOperand

WeightRemedy = str | Sequence[str]
"""Recipes to try: "auto" for all of `weight_recipes.RECIPES`, or names of some. Doing nothing is always tried."""


@dataclass(frozen=True)
class WeightCalibration:
    """The choice of a mitigation of static weights.

    Attributes:
        recipe: name of the best recipe; "none" if no recipe helps.
        losses: recipe -> mean loss of the model's answers against those of the original.
        weights: operand -> its mitigation, without those for which nothing is done.
    """

    recipe: str
    losses: dict[str, float]
    weights: dict[str, WeightMitigation]

    def canonical(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        weights = {name: spec.canonical() for name, spec in self.weights.items()}
        return {"recipe": self.recipe, "losses": dict(self.losses), "weights": weights}


def weight_recipes(remedy: WeightRemedy | None) -> list[str]:
    """Return the names of the recipes of a remedy, doing nothing first.

    Raises:
        BadInput: a recipe is unknown, or named twice.
    """
    if remedy is None:
        return ["none"]
    if not isinstance(remedy, (str, list, tuple)):
        raise BadInput(f"calibrate: weights is {given(remedy)}; give 'auto', None or the names of recipes")
    names: list[Any] = list(RECIPES) if remedy == "auto" else [remedy] if isinstance(remedy, str) else list(remedy)
    for name in names:
        if not isinstance(name, str):
            raise BadInput(f"calibrate: weights is {given(name)}; give 'auto', None or the names of recipes")
        if name not in RECIPES:
            raise BadInput(f"calibrate: weights = {shown(name)}: {suggest(shown(name), ['auto', *RECIPES])}")
        if names.count(name) > 1:
            raise BadInput(f"calibrate: weights names {name!r} twice; leave one of them out")
    return ["none", *(name for name in names if name != "none")]


def protectable_weights(handle: Handle) -> list[WeightOperand]:
    """Return the operands of static weights in memristive cells whose mitigation no rule sets."""
    found = []
    for operand in weight_operands(handle):
        free = rule_of(handle, operand.name).weights is None
        if free and assignment(handle, operand.name, WeightMitigation()).memristive:
            found.append(operand)
    return found


def choose_weights(runs: Runs, names: Sequence[str]) -> WeightCalibration:
    """Protect static weights by the best of several recipes, with K and V exact, and return the choice.

    First each recipe is set up for every layer by its expected error (`weight_error`). Then the whole model runs with
    each recipe on several chips, and the recipe with the smallest loss is kept if it is better than doing nothing by
    more than chance over chips and inputs.

    Args:
        runs: the model with unprotected weights, on the chip of calibration.
        names: names of recipes, "none" first.

    Raises:
        BadInput: the cells have no closed form.
    """
    handle, operands = runs.handle, protectable_weights(runs.handle)
    if all(is_noiseless(operand.array) for operand in operands):
        return WeightCalibration("none", {}, {})
    _check_arrays(operands)
    chosen: dict[str, dict[str, FittedMitigation]] = {}
    with observing(operands):
        runs.run("observe vectors", OBSERVED)
        for name in names:
            if not RECIPES[name].feedback:
                chosen[name] = _chosen_by(handle, operands, name)
            else:
                without = chosen.get("residual") or _chosen_by(handle, operands, "residual")
                chosen[name] = _with_feedback(runs, operands, without)
    losses: dict[str, Tensor] = {}
    for name in names:
        if chosen[name] or name == "none":
            _apply(runs, chosen[name])
            losses[name] = losses_on_chips(runs, "run weights")
    floor = losses_of(runs.reference, runs.reference)
    best = best_on_chips(losses, floor, input_numbers(runs.reference, handle.axis))
    _apply(runs, chosen[best])
    return WeightCalibration(
        best,
        {name: float(loss.mean()) for name, loss in losses.items()},
        {name: each.mitigation for name, each in chosen[best].items() if each.mitigation != WeightMitigation()},
    )


def unprotected(runs: Runs) -> None:
    """Leave all static weights unprotected whose mitigation no rule sets."""
    runs.handle.weights = WeightMitigation()
    _apply(runs, {})


def _chosen_by(handle: Handle, operands: Sequence[WeightOperand], recipe: str) -> dict[str, FittedMitigation]:
    """Return operand -> what a recipe chooses for it; operands for which it has nothing are left out."""
    chosen: dict[str, FittedMitigation] = {}
    for group in groups(operands) if recipe != "none" else ():
        found = best_mitigation(handle, group, RECIPES[recipe])
        if found is not None:
            chosen |= {operand.name: found for operand in group}
    return chosen


def _with_feedback(
    runs: Runs, operands: Sequence[WeightOperand], chosen: Mapping[str, FittedMitigation]
) -> dict[str, FittedMitigation]:
    """Return mitigations with residual writing, with corrections of errors in later weights where cells can have them.

    Range and radix are chosen anew, and rotation and scaling are kept. Second moments of inputs are those of all
    calibration inputs. Stacks of matrices get no corrections.
    """
    observed, found = [operand.observed for operand in operands], dict(chosen)
    with observing(operands, moments=True):
        runs.run("observe vectors")
        single = [operand for operand in operands if operand.observed is not None and not operand.observed.several]
        for operand in single:
            if fitted := chosen.get(operand.name):
                operand.mitigation, operand.scaling = fitted.mitigation, fitted.scaling
                operand.rotated = assignment(runs.handle, operand.name, fitted.mitigation).rotated
        for group in groups((operand for operand in single if operand.name in chosen), alike=True):
            feedback = error_feedback(group)
            fitted = None if feedback is None else with_feedback(runs.handle, group, chosen[group[0].name], feedback)
            if fitted is not None:
                found |= {operand.name: fitted for operand in group}
    for operand, vectors in zip(operands, observed, strict=True):
        operand.observed = vectors  # so that the order of recipes decides nothing
    return found


def _apply(runs: Runs, chosen: Mapping[str, FittedMitigation]) -> None:
    """Let weights be written as chosen, and all others plainly, but as rules say; calibrate all ranges anew."""
    handle = runs.handle
    specs = {name: choice.mitigation for name, choice in chosen.items()}
    by_rule = {op.name: op for op in weight_operands(handle) if rule_of(handle, op.name).weights is not None}
    fitted: dict[str, WeightOperand | FittedMitigation] = {**by_rule, **chosen}
    scaling = {name: each.scaling for name, each in fitted.items() if each.scaling is not None}
    feedback = {name: each.feedback for name, each in fitted.items() if each.feedback is not None}
    mitigate(handle, assignments(handle, specs), scaling, feedback)
    calibrate_ranges(runs.model)


def _check_arrays(operands: Sequence[WeightOperand]) -> None:
    """Refuse arrays whose cells have no closed form even just after they are written.

    Raises:
        BadInput: an array is refused.
    """
    for operand in operands:
        if reason := no_closed_form(just_written(operand.array)):
            raise BadInput(f"{operand.name} cannot be calibrated: {reason}; or set mitigation.weights by hand")
