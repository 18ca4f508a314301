"""Recipes to protect static weights: each chooses a mitigation by layer, by the smallest expected error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.calibration.recipes import radices
from ohmformer.nn.calibration.weight_error import Sampled, corrected_error, expected_error
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.convert.weight_mitigation import assignment, scaling_factors
from ohmformer.nn.operands.observation import WeightInputs
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.schema import replace

EXPONENTS = (0.25, 0.5, 0.75)
"""Grid of the exponent of scaling."""
RANGES = (1.0, 0.85, 0.7, 0.55)
"""Grid of the range, as shares of the largest magnitude."""
RESIDUAL_RANGES = (1.0, 0.85, 0.7, 1.2, 1.5, 1.8)
"""The same for residual writing. Above 1, the largest weights too leave room for corrections by later cells."""
WriteError = Callable[[WeightOperand, Sequence[Sampled]], float]
"""The mean square error of an operand's products, with its present array and mitigation."""
WORTH = 0.02
"""Share of the expected error that digital work on inputs (scaling, rotation) must remove, to be worth it."""


@dataclass(frozen=True)
class WeightRecipe:
    """A way to choose the mitigation of static weights.

    Attributes:
        transforms: pairs of rotation and exponent of scaling to try, the cheapest first.
        cells: True if codes, range and radix are chosen, with one scale for each column.
        residual: True if values are written residually.
        feedback: True if errors are corrected in weights that are written later.
    """

    transforms: tuple[tuple[bool, float | None], ...] = ((False, None),)
    cells: bool = False
    residual: bool = False
    feedback: bool = False


_ALL = tuple(product((False, True), (None, *EXPONENTS)))
"""All pairs of rotation and exponent, from the cheapest to the dearest."""

RECIPES: Mapping[str, WeightRecipe] = {
    "none": WeightRecipe(),
    "scaled": WeightRecipe(tuple((False, exponent) for exponent in (None, *EXPONENTS))),
    "codes": WeightRecipe(_ALL, cells=True),
    "residual": WeightRecipe(_ALL, cells=True, residual=True),
    "feedback": WeightRecipe(_ALL, cells=True, residual=True, feedback=True),
}
"""Recipe -> how it chooses. `scaled` changes no code and no cell; `codes` chooses bias-corrected codes, range and
radix, and `residual` writes residually; both choose rotation and scaling too. `feedback` is `residual`, with errors
corrected in later weights."""


@dataclass(frozen=True)
class FittedMitigation:
    """The mitigation of operands that share one, with its factors.

    Attributes:
        mitigation: the mitigation.
        scaling: factors [I]; None for none.
        feedback: corrections of errors in later weights; None for none.
    """

    mitigation: WeightMitigation
    scaling: Tensor | None = None
    feedback: ErrorFeedback | None = None


def best_mitigation(handle: Handle, group: Sequence[WeightOperand], recipe: WeightRecipe) -> FittedMitigation | None:
    """Return the mitigation with the smallest expected error that a recipe allows; the cheapest of about equals.

    The radix is chosen for the first pair of rotation and exponent, and kept for the others.

    Args:
        handle: the converted model.
        group: observed operands that share a mitigation; their settings are changed by the search.
        recipe: the recipe.

    Returns:
        The choice; None if the arrays cannot have any mitigation of this recipe, or no input was observed.
    """
    seen = _seen(group)
    if not seen:
        return None
    operand, best, least = group[0], None, 0.0
    tried: Sequence[int | None] = radices(assigned_array(handle, operand.name)) if recipe.cells else [None]
    for rotate, exponent in recipe.transforms:
        scaling = None if exponent is None else scaling_factors(group, exponent)
        plain = WeightMitigation(rotate=rotate, scaling=exponent)
        found = _best_cells(handle, operand, seen, plain, scaling, tried, recipe, expected_error)
        if found is None:
            continue
        error, mitigation = found
        if best is None or error < (1 - WORTH) * least:
            least, best = error, FittedMitigation(mitigation, scaling)
        tried = [best.mitigation.radix] if len(tried) > 1 else tried
    return best


def with_feedback(
    handle: Handle, group: Sequence[WeightOperand], fitted: FittedMitigation, feedback: ErrorFeedback
) -> FittedMitigation | None:
    """Return a mitigation with errors corrected in later weights, and the range and radix that are best with that.

    Corrections make the targets of later weights larger, so they need a larger range than weights that get none.

    Args:
        handle: the converted model.
        group: observed operands that share the mitigation; their settings are changed by the search.
        fitted: the mitigation without corrections, whose rotation and scaling are kept.
        feedback: the corrections.

    Returns:
        The choice; None if the arrays cannot have it.
    """
    operand, recipe = group[0], RECIPES["feedback"]
    plain = WeightMitigation(rotate=fitted.mitigation.rotate, scaling=fitted.mitigation.scaling)
    error = partial(corrected_error, feedback=feedback)
    tried = radices(assigned_array(handle, operand.name))
    found = _best_cells(handle, operand, _seen(group), plain, fitted.scaling, tried, recipe, error)
    return None if found is None else FittedMitigation(found[1], fitted.scaling, feedback)


def _seen(group: Sequence[WeightOperand]) -> list[tuple[WeightOperand, WeightInputs]]:
    """Return the operands that were used, with what they have observed."""
    return [(operand, operand.observed) for operand in group if operand.observed is not None and operand.observed.kept]


def _best_cells(
    handle: Handle,
    operand: WeightOperand,
    seen: Sequence[tuple[WeightOperand, WeightInputs]],
    plain: WeightMitigation,
    scaling: Tensor | None,
    tried: Sequence[int | None],
    recipe: WeightRecipe,
    error_of: WriteError,
) -> tuple[float, WeightMitigation] | None:
    """Return the smallest expected error with its mitigation, for one rotation and exponent; None if no radix fits."""
    best: tuple[float, WeightMitigation] | None = None
    parts: list[Sampled] = []
    for radix in tried:
        mitigation = _with_cells(assigned_array(handle, operand.name), plain, radix, recipe)
        try:
            place = assignment(handle, operand.name, mitigation)
        except BadInput:
            continue
        assert place.array is not None
        operand.mitigate(place.array, place.rotated, place.mitigation, scaling)
        if not parts:
            for each, vectors in seen:
                each.rotated, each.scaling = place.rotated, scaling
                parts.append(Sampled.of(each, vectors))
        for share in _ranges(operand.array, recipe):
            operand.mitigation = mitigation.model_copy(update={"range": share})
            error = error_of(operand, parts)
            best = (error, operand.mitigation) if best is None or error < best[0] else best
    return best


def _ranges(array: Crossbar, recipe: WeightRecipe) -> tuple[float, ...]:
    """Return the ranges to try."""
    if not recipe.cells:
        return (1.0,)
    return RANGES if array.residual is None else RESIDUAL_RANGES


def _with_cells(array: Crossbar, plain: WeightMitigation, radix: int | None, recipe: WeightRecipe) -> WeightMitigation:
    """Return a mitigation with the codes and cells of a recipe."""
    if not recipe.cells:
        return plain
    residual = replace(array.residual or Residual(), "feedback", recipe.feedback) if recipe.residual else None
    unbiased = residual is None and array.residual is None and not no_closed_form(array)
    return plain.model_copy(update={"scale": "column", "radix": radix, "unbiased": unbiased, "residual": residual})


def assigned_array(handle: Handle, name: str) -> Crossbar:
    """Return the array of static weights without a mitigation."""
    array = assignment(handle, name, WeightMitigation()).array
    assert array is not None
    return array
