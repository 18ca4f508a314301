"""Recipes to protect static weights: each chooses a mitigation by layer, by the smallest expected error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.calibration.recipes import radices
from ohmformer.nn.calibration.weight_error import Sampled, expected_error
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.convert.weight_mitigation import assignment, scaling_factors
from ohmformer.nn.operands.observation import WeightInputs
from ohmformer.nn.operands.weight import WeightOperand

EXPONENTS = (0.25, 0.5, 0.75)
"""Grid of the exponent of scaling."""
RANGES = (1.0, 0.85, 0.7, 0.55)
"""Grid of the range, as shares of the largest magnitude."""
RESIDUAL_RANGES = (1.0, 0.85, 0.7, 1.2, 1.5, 1.8)
"""The same for residual writing. Above 1, the largest weights too leave room for corrections by later cells."""
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
    seen = [(operand, operand.observed) for operand in group if operand.observed is not None and operand.observed.kept]
    if not seen:
        return None
    operand, best, least = group[0], None, 0.0
    tried: Sequence[int | None] = radices(assigned_array(handle, operand.name)) if recipe.cells else [None]
    for rotate, exponent in recipe.transforms:
        scaling = None if exponent is None else scaling_factors(group, exponent)
        found = _best_cells(
            handle, operand, seen, WeightMitigation(rotate=rotate, scaling=exponent), scaling, tried, recipe
        )
        if found is None:
            continue
        error, mitigation = found
        if best is None or error < (1 - WORTH) * least:
            least, best = error, FittedMitigation(mitigation, scaling)
        tried = [best.mitigation.radix] if len(tried) > 1 else tried
    return best


def _best_cells(
    handle: Handle,
    operand: WeightOperand,
    seen: Sequence[tuple[WeightOperand, WeightInputs]],
    plain: WeightMitigation,
    scaling: Tensor | None,
    tried: Sequence[int | None],
    recipe: WeightRecipe,
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
            error = expected_error(operand, parts)
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
    residual = (array.residual or Residual()) if recipe.residual else None
    unbiased = residual is None and array.residual is None and not no_closed_form(array)
    return plain.model_copy(update={"scale": "column", "radix": radix, "unbiased": unbiased, "residual": residual})


def assigned_array(handle: Handle, name: str) -> Crossbar:
    """Return the array of static weights without a mitigation."""
    array = assignment(handle, name, WeightMitigation()).array
    assert array is not None
    return array
