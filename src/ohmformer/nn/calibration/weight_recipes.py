"""Recipes to protect static weights: each chooses a mitigation by layer, by the smallest expected error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.calibration.recipes import radices
from ohmformer.nn.calibration.weight_error import Sampled, expected_error
from ohmformer.nn.convert.handle import Crossbars
from ohmformer.nn.convert.weight_mitigation import assignment, scaling_factors
from ohmformer.nn.operands.weight import WeightOperand

EXPONENTS = (0.25, 0.5, 0.75)
"""Grid of the exponent of scaling."""
RANGES = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Grid of the range, as shares of the largest magnitude."""
WORTH = 0.02
"""Share of the expected error that digital work on inputs (scaling, rotation) must remove, to be worth it."""


@dataclass(frozen=True)
class WeightRecipe:
    """A way to choose the mitigation of static weights.

    Attributes:
        transforms: pairs of rotation and exponent of scaling to try, the cheapest first.
        cells: True if codes, range and radix are chosen, with one scale for each column.
        residual: True if values are written residually.
    """

    transforms: tuple[tuple[bool, float | None], ...] = ((False, None),)
    cells: bool = False
    residual: bool = False


_ALL = tuple(product((False, True), (None, *EXPONENTS)))
"""All pairs of rotation and exponent, from the cheapest to the dearest."""

RECIPES: Mapping[str, WeightRecipe] = {
    "none": WeightRecipe(),
    "scaled": WeightRecipe(tuple((False, exponent) for exponent in EXPONENTS)),
    "codes": WeightRecipe(_ALL, cells=True),
    "residual": WeightRecipe(_ALL, cells=True, residual=True),
}
"""Recipe -> how it chooses. `scaled` changes no code and no cell; `codes` chooses unbiased codes, range and radix, and
`residual` writes residually; both choose rotation and scaling too."""


@dataclass(frozen=True)
class Chosen:
    """The mitigation of operands that share one, with its factors.

    Attributes:
        mitigation: the mitigation.
        scaling: factors [I]; None for none.
    """

    mitigation: WeightMitigation
    scaling: Tensor | None = None


def best_mitigation(handle: Crossbars, group: Sequence[WeightOperand], recipe: WeightRecipe) -> Chosen | None:
    """Return the mitigation with the smallest expected error that a recipe allows; the cheapest of about equals.

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
    first, best, least = group[0], None, 0.0
    for rotate, exponent in recipe.transforms:
        scaling = None if exponent is None else scaling_factors(group, exponent)
        plain = WeightMitigation(rotate=rotate, scaling=exponent)
        if not _applied(handle, first, plain, scaling):
            continue
        parts = []
        for operand, vectors in seen:
            operand.rotated, operand.scaling = first.rotated, scaling
            parts.append(Sampled.of(operand, vectors))
        found = _best_cells(handle, first, plain, scaling, parts, recipe)
        if found is not None and (best is None or found[0] < (1 - WORTH) * least):
            least, best = found[0], Chosen(found[1], scaling)
    return best


def _best_cells(
    handle: Crossbars,
    operand: WeightOperand,
    plain: WeightMitigation,
    scaling: Tensor | None,
    parts: Sequence[Sampled],
    recipe: WeightRecipe,
) -> tuple[float, WeightMitigation] | None:
    """Return the smallest expected error with its mitigation, for one rotation and exponent."""
    best: tuple[float, WeightMitigation] | None = None
    for candidate in _candidates(operand.array, plain, recipe):
        if _applied(handle, operand, candidate, scaling):
            error = expected_error(operand, parts)
            best = (error, candidate) if best is None or error < best[0] else best
    return best


def _candidates(array: Crossbar, plain: WeightMitigation, recipe: WeightRecipe) -> Iterator[WeightMitigation]:
    """Yield the mitigations of a recipe with the rotation and exponent of `plain`, that without a radix first."""
    if not recipe.cells:
        yield plain
        return
    residual = (array.residual or Residual()) if recipe.residual else None
    unbiased = residual is None and array.residual is None and not no_closed_form(array)
    for radix, share in product(radices(array), RANGES):
        cells = {"scale": "column", "radix": radix, "range": share, "unbiased": unbiased, "residual": residual}
        yield plain.model_copy(update=cells)


def _applied(handle: Crossbars, operand: WeightOperand, spec: WeightMitigation, scaling: Tensor | None) -> bool:
    """Give an operand a mitigation; False if its array cannot have it."""
    try:
        place = assignment(handle, operand.name, spec)
    except BadInput:
        return False
    assert place.array is not None
    operand.mitigate(place.array, place.rotated, place.mitigation, scaling)
    return True
