"""The recipes that a remedy names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ohmformer.errors import BadInput, given, shown, suggest
from ohmformer.mitigation.budget import KVBudget
from ohmformer.nn.calibration.budget_recipes import PLAIN, recipes_within
from ohmformer.nn.calibration.recipes import Recipe, recipe_of

REMEDIES: Mapping[str, tuple[str, ...]] = {"clip": ("none", "clip", "firm clip"), "auto": PLAIN}
"""Remedy -> its recipes, the cheapest first. Recipes of other packages are tried only by name, so that no result
depends on what is installed."""

Remedy = str | Recipe | Sequence[str | Recipe]
"""A key of `REMEDIES`, a recipe or its name, or several of these."""

FORMER = {"written": "combined"}
"""Former name of a recipe -> its name."""


def recipes_of(remedy: Remedy, budget: KVBudget | None = None) -> dict[str, Recipe]:
    """Return the recipes of a remedy by label, with doing nothing first.

    Args:
        remedy: the remedy.
        budget: with a budget, `auto` has further recipes; see `recipes_within`.

    Raises:
        BadInput: the remedy or a recipe is unknown, or two recipes have one name.
    """
    if budget is not None and isinstance(remedy, str) and remedy == "auto":
        return _by_label(recipes_within(budget))
    if isinstance(remedy, str) and remedy in REMEDIES:
        return {name: recipe_of(name) for name in REMEDIES[remedy]}
    choices = remedy if isinstance(remedy, Sequence) and not isinstance(remedy, str) else (remedy,)
    chosen = [choice if isinstance(choice, Recipe) else _named_recipe(choice) for choice in choices]
    return _by_label([recipe_of("none"), *(recipe for recipe in chosen if recipe.kind != "none")])


def _by_label(found: Sequence[Recipe]) -> dict[str, Recipe]:
    """Label -> recipe.

    Raises:
        BadInput: two recipes have one label.
    """
    by_label: dict[str, Recipe] = {}
    for recipe in found:
        if recipe.label in by_label:
            raise BadInput(f"remedy: names {recipe.label!r} twice; leave one of them out")
        by_label[recipe.label] = recipe
    return by_label


def _named_recipe(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        BadInput: there is none.
    """
    if not isinstance(name, str):
        raise BadInput(f"calibrate: remedy is {given(name)}; give the name of a recipe, such as 'auto' or 'clip'")
    if name not in Recipe.kinds() and name in FORMER:
        raise BadInput(f"remedy = {name!r}: is now called {FORMER[name]!r}; rename it")
    if name not in Recipe.kinds():
        raise BadInput(
            f"remedy = {shown(name)}: {suggest(shown(name), list(dict.fromkeys([*REMEDIES, *Recipe.kinds()])))}"
        )
    return recipe_of(name)
